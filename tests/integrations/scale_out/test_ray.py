"""Ray: the examples of docs/SCALE.md, with an actor and a driver that are killed, and what is refused."""

import os
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bgert
from bgert.integrations.ray import Embed, Score, embed_parquet

SMALL = "object_store_memory=200 << 20, include_dashboard=False"


@pytest.fixture(scope="module")
def ray():
    import ray

    ray.init(num_cpus=4, object_store_memory=200 << 20, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def test_a_killed_actor_and_a_killed_driver(ray, example, program, texts, models, check, tmp_path):
    """Nothing is lost, nothing twice; then what was done stays so."""
    code = example(
        "ray-parquet", **{"num_cpus=os.cpu_count() + 2": f"num_cpus=4, {SMALL}", '"id"': '"id", rows_per_file=32'}
    )
    target = tmp_path / "vectors"
    with program(code) as driver:
        driver.wait_for(lambda: list(target.glob("*.parquet")))
        os.kill(driver.below(r"^ray::MapWorker\(MapBatches\(_SameModel")[0], signal.SIGKILL)
        seen = len(list(target.glob("*.parquet")))
        driver.wait_for(lambda: len(list(target.glob("*.parquet"))) >= seen + 8)
    done = sum(pq.read_metadata(path).num_rows for path in finished(target))
    assert 0 < done < 1200
    again = {"id_column": "id", "rows_per_file": 32}
    assert embed_parquet(texts, target, models["exported-minilm"], **again) == 1200
    check(target)
    names = sorted(path.name for path in target.iterdir())
    assert embed_parquet(texts, target, models["exported-minilm"], **again) == 1200
    assert sorted(path.name for path in target.iterdir()) == names
    for change in ({"role": "query"}, {"dtype": "int8"}, {"precision": "fp32"}):
        with pytest.raises(bgert.InvalidOptionError, match=f"of a job with another {next(iter(change))}"):
            embed_parquet(texts, target, models["exported-minilm"], **again, **change)
    with pytest.raises(bgert.InvalidOptionError, match="of a job with another model"):
        embed_parquet(texts, target, models["exported-bge"], **again)


def finished(target):
    """Files that are whole: one that was being written has no footer."""
    for path in target.glob("*.parquet"):
        try:
            pq.read_metadata(path)
        except pa.ArrowInvalid:
            continue
        yield path


def test_a_stage_of_a_pipeline(ray, example, check, tmp_path):
    exec(compile(example("ray-stage"), "docs/SCALE.md", "exec"), {})
    check(tmp_path / "vectors")
    assert len(list((tmp_path / "vectors").iterdir())) >= 3, "eight small files were one block"


def test_threads_are_the_cpus_that_ray_gave_whatever_omp_says(ray, models, reranker):
    class Look(Embed):
        def __call__(self, batch):
            size = len(batch["text"])
            return {
                "threads": np.full(size, self.options["threads"]),
                "device": np.full(size, self.model.device),
                "cores": np.full(size, self.model.backend.info.workers),
            }

    source = ray.data.from_items([{"text": "a b", "query": "a"}])
    options = {"compute": ray.data.ActorPoolStrategy(size=1), "fn_constructor_args": (models["exported-minilm"],)}
    (row,) = source.map_batches(Look, **options, num_cpus=2).take_all()
    assert (row["threads"], row["cores"], row["device"]) == (2, 2, "cpu")
    options = {"compute": ray.data.ActorPoolStrategy(size=1), "fn_constructor_args": (models["exported-reranker"],)}
    (row,) = source.map_batches(
        Score, **options, fn_constructor_kwargs={"document": "text"}, batch_format="pyarrow", num_cpus=1
    ).take_all()
    assert row["score"] == reranker.score(("a", "a b"))


@pytest.mark.parametrize(
    ("ids", "match"),
    [
        ([1, 2, 1], r"more than once \(1 ...\)"),
        (["a", None, "b"], "1 nulls"),
        ([1.0, 2.0, 3.0], "holds double"),
    ],
)
def test_ids_that_cannot_tell_rows_apart_are_refused(ids, match, ray, models, tmp_path):
    pq.write_table(pa.table({"key": ids, "text": ["a", "b", "c"]}), tmp_path / "in.parquet")
    with pytest.raises(bgert.InvalidOptionError, match=match):
        embed_parquet(str(tmp_path / "in.parquet"), str(tmp_path / "out"), models["exported-minilm"], id_column="key")
    assert not (tmp_path / "out").exists()


def test_what_would_hang_or_mix_is_refused(ray, models, texts, tmp_path):
    target, folder = str(tmp_path / "out"), models["exported-minilm"]
    for options in ({"actors": 3}, {"actors": 1, "num_cpus": 3}, {"actors": 1, "num_gpus": 1}):
        with pytest.raises(bgert.InvalidOptionError, match="would wait for ever"):
            embed_parquet(str(texts), target, folder, id_column="id", **options)
    for options in ({"column": "body"}, {"output": "number"}, {"id_column": "key"}):
        with pytest.raises(bgert.InvalidOptionError, match="column"):
            embed_parquet(str(texts), target, folder, **{"id_column": "id", **options})
    with pytest.raises(bgert.InvalidTextError, match="'number' holds double"):
        embed_parquet(str(texts), target, folder, id_column="id", column="number")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/other.parquet").write_bytes(b"")
    with pytest.raises(bgert.InvalidOptionError, match="holds files and there is no"):
        embed_parquet(str(texts), target, folder, id_column="id")


def test_an_actor_whose_folder_is_not_the_drivers_ends_the_job(ray, models):
    from bgert.integrations.ray import _SameModel

    actor = ray.remote(_SameModel).remote(models["exported-minilm"], "another digest")
    with pytest.raises(ray.exceptions.RayActorError, match="copy it again"):
        ray.get(actor.__ray_ready__.remote())
