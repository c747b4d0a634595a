"""Reading, merging and resuming of results."""

import json

import pytest

import results

MACHINE = {"processor": "P", "cores": 2}


@pytest.fixture
def result():
    return results.begin("2026-01-01", "abc", MACHINE)


def test_a_group_joins_and_what_was_measured_stays(result):
    results.merge_group(result, "m", {"layers": 1}, {"gemm": {"fp32": 1}, "peers": {"bgert": {"n": 1}, "x": {"n": 2}}})
    later = {"gemm": {"fp32": 9}, "peers": {"bgert": {"n": 9}, "y": {"n": 3}}}
    results.merge_group(result, "m", {"layers": 1}, later)
    model = result["models"]["m"]
    assert model["peers"] == {"bgert": {"n": 1}, "x": {"n": 2}, "y": {"n": 3}}
    assert model["gemm"] == {"fp32": 1}


def test_what_failed_is_tried_again(result):
    results.merge_group(result, "m", {}, {"gemm": {}, "peers": {"bgert": {"n": 1}, "x": {"error": "no"}}})
    assert results.missing_peers(result, "m", ["bgert", "x", "y"]) == ["x", "y"]
    results.merge_group(result, "m", {}, {"gemm": {}, "peers": {"x": {"n": 2}}})
    assert results.missing_peers(result, "m", ["bgert", "x"]) == []


def test_resuming_needs_the_same_commit_and_machine(result, tmp_path):
    path = tmp_path / "r.json"
    results.write(result, path)
    assert results.resumed(path, "abc", MACHINE) == result
    with pytest.raises(ValueError, match="commit abc"):
        results.resumed(path, "other", MACHINE)
    with pytest.raises(ValueError, match="another machine"):
        results.resumed(path, "abc", MACHINE | {"cores": 4})


def test_results_of_another_schema_are_refused(tmp_path):
    (tmp_path / "r.json").write_text('{"schema": 1}')
    with pytest.raises(ValueError, match="schema 1"):
        results.read(tmp_path / "r.json")


def test_writing_leaves_no_half_file(result, tmp_path):
    results.write(result, tmp_path / "new" / "r.json")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["r.json"]


def put(folder, name, **content):
    (folder / name).write_text(json.dumps(content))
    return folder / name


def test_a_newer_result_of_a_gpu_is_not_the_newest_of_a_cpu(tmp_path):
    cpu = put(tmp_path, "2026-01-01-cpu.json", schema=2)
    gpu = put(tmp_path, "2026-02-01-gpu.json", schema=1, kind="gpu", rehearsal=False)
    assert results.newest(tmp_path) == cpu
    assert results.newest(tmp_path, "gpu") == gpu
    with pytest.raises(ValueError, match="kind gpu, not cpu"):
        results.read(gpu)
    with pytest.raises(FileNotFoundError, match="kind gpu-beside"):
        results.newest(tmp_path, "gpu-beside")


def test_a_rehearsal_is_no_result(tmp_path):
    rehearsal = put(tmp_path, "r.json", **results.begin_gpu("2026-01-01", "abc", rehearsal=True))
    with pytest.raises(ValueError, match="rehearsal"):
        results.read(rehearsal, "gpu")


def test_stages_measured_beside_join_only_the_same_commit_day_and_gpu(tmp_path):
    head = results.begin_gpu("2026-01-01", "abc", rehearsal=False)
    machine = {"machine": {"gpu": "NVIDIA H200, 580, 1980 MHz, 700.00 W"}}
    own = head | machine | {"trained": {"n": 1}, "rerankers": {"error": "no"}}
    beside = (
        head | {"kind": "gpu-beside", "machine": {"gpu": "NVIDIA H200"}} | {key: {"n": 2} for key in results.BESIDE}
    )
    put(tmp_path, "2026-01-01-gpu.json", **own)
    put(tmp_path, "2026-01-01-gpu-beside.json", **beside)
    found = results.gpu(tmp_path)
    assert {key: found[key]["n"] for key in results.BESIDE} == {
        "geometries": 2,
        "rerankers": 2,
        "trained": 1,
        "torch_compile": 2,
    }
    for other in ({"commit": "def"}, {"date": "2026-01-02"}, {"machine": {"gpu": "NVIDIA L4"}}):
        put(tmp_path, "2026-01-01-gpu-beside.json", **(beside | other))
        with pytest.raises(ValueError, match="not measured on 2026-01-01 at abc"):
            results.gpu(tmp_path)
