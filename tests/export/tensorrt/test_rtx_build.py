"""`bgert build --for` on a fake TensorRT for RTX: options, the key, and what is said."""

import json

import pytest

import tensorrt_fake
from bgert.backends.tensorrt.engine_cache import EngineCache
from bgert.commands import main as cli
from bgert.errors import EngineError, EngineNotInstalledError, InvalidOptionError
from bgert_export import export
from bgert_export.tensorrt.engine import BuildOptions, build_engine


@pytest.fixture(scope="module")
def folder(write_model, sentence_transformers_files, tmp_path_factory):
    root = tmp_path_factory.mktemp("rtx-build")
    checkpoint = write_model(root / "checkpoint", files=sentence_transformers_files("cls"))
    export(checkpoint, root / "model", targets=["tensorrt", "tensorrt-bf16"], verify=False)
    return root / "model"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setenv("BGERT_CACHE", str(tmp_path / "cache"))
    machine = tensorrt_fake.Machine()
    machine.driver = False  # none is needed
    machine.fused = 2  # of three layers, the last of which asks for one token
    return machine


@pytest.fixture
def library(machine, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings.runtime", None)
    return tensorrt_fake.install(monkeypatch, machine, "tensorrt_rtx 1.7")


def options(*targets, **other):
    return BuildOptions(**{"buckets": [16, 64], "tokens_per_batch": 128, "targets": targets} | other)


def test_build_then_hit_without_gpu_or_driver(folder, library, machine):
    lines = []
    record = build_engine(folder, options("sm120", "sm89"), lines.append)
    assert record.recipe.environment.targets == "sm89,sm120"
    assert (record.recipe.environment.gpu, record.recipe.environment.driver) == ("", 0)
    assert (record.fused_attention, record.notes) == ([2, 2], [])
    assert (record.activations, record.weights) == ([1000, 1001], 4242)
    plan = EngineCache().load(record)
    assert json.loads(plan[64:])["targets"] == ["SM120", "SM89"]
    assert build_engine(folder, options("sm89", "sm120"), lines.append) == record
    assert machine.builds == 1
    assert "in the cache" in lines[-1]
    assert not (EngineCache().root / "timing").exists()


def test_any_leaves_the_targets_to_the_library(folder, library):
    record = build_engine(folder, options("any"), print)
    assert record.recipe.environment.targets == "any"
    assert json.loads(EngineCache().load(record)[64:])["targets"] == []


def test_targets_and_shapes_are_part_of_the_key(folder, library, machine):
    variants = [
        options("any"),
        options("sm89"),
        options("sm86", "sm89"),
        options("sm75"),
        options("any", buckets=[16]),
        options("any", precision="bf16"),
    ]
    assert len({build_engine(folder, variant, print).recipe.key() for variant in variants}) == len(variants)
    # What has no effect is no part of it, and that is said.
    lines = []
    build_engine(folder, options("any", level=5, workspace=1 << 20), lines.append)
    assert machine.builds == len(variants)
    assert sum("has no effect" in line for line in lines) == 2


@pytest.mark.parametrize(
    ("targets", "other", "message"),
    [
        (["sm90"], {}, "sm75, sm80, sm86, sm89, sm120, sm121; 9.0, 10.0 and Jetson need"),
        (["SM 89"], {}, "use any"),
        ([""], {}, "use any"),
        ([], {}, "use any"),
        (["any", "sm89"], {}, "use any"),
        (["sm89", "sm89"], {}, "use any"),
        (["sm75", "sm89"], {}, "for it alone"),
        (["sm75"], {"precision": "bf16"}, "no bf16"),
        (["any"], {"lean": True}, "--lean"),
    ],
)
def test_refused_before_anything_is_imported(folder, machine, monkeypatch, targets, other, message):
    tensorrt_fake.install(monkeypatch, machine, None)
    with pytest.raises(InvalidOptionError, match=message):
        build_engine(folder, options(*targets, **other), print)


def test_not_installed(folder, machine, monkeypatch):
    tensorrt_fake.install(monkeypatch, machine, "tensorrt 11.4")
    with pytest.raises(EngineNotInstalledError, match=r"tensorrt_rtx cannot be imported .*the extra `tensorrt-rtx`"):
        build_engine(folder, options("any"), print)


def test_the_gate(folder, library, machine):
    machine.fused = 1
    assert "1 of 2 attention layers" in build_engine(folder, options("any"), print).notes[0]
    with pytest.raises(EngineError, match="not fused as asked for"):
        build_engine(folder, options("sm89", require_fused=True), print)
    machine.fail = {"list"}  # what is not listed is not known to be fused
    with pytest.raises(EngineError, match="fusion cannot be told"):
        build_engine(folder, options("sm80"), print)


def test_a_failed_build_says_what_the_compiler_said(folder, library, machine):
    machine.fail = {"build"}
    with pytest.raises(EngineError, match=r"could not build the engine: Could not find any implementation$"):
        build_engine(folder, options("any"), print)
    assert list(EngineCache().root.rglob("*.json")) == []


def test_command_line(folder, library, capsys):
    build = ["build", str(folder), "--buckets", "16,64", "--tokens-per-batch", "128"]
    assert cli.main([*build, "--for", "SM89,sm120"]) == 0
    out = capsys.readouterr().out
    assert "for sm89,sm120, built in" in out
    assert "length    16, 1 to   8 texts: 2 of 2 attention layers fused, activations 0.0 MB" in out
    (record,) = EngineCache().root.rglob("*.json")
    assert json.loads(record.read_text())["sha256"] in out
    assert cli.main([*build, "--for", "jetson"]) == 2
