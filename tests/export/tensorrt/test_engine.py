"""`bgert build` on a fake TensorRT: builds, the cache, everything that may fail, and what is left behind."""

import json
import threading

import pytest

import tensorrt_fake
from bgert.backends.tensorrt.engine_cache import EngineCache
from bgert.backends.tensorrt.recipe import Profile
from bgert.commands import main as cli
from bgert.errors import (
    DeviceUnavailableError,
    EngineError,
    EngineNotInstalledError,
    IntegrityError,
    InvalidOptionError,
)
from bgert_export import export
from bgert_export.tensorrt.engine import BuildOptions, build_engine, plan_profiles

LIBRARIES = ["tensorrt 10.3", "tensorrt 10.16", "tensorrt 11.4"]


@pytest.fixture(scope="module")
def folder(write_model, sentence_transformers_files, tmp_path_factory):
    root = tmp_path_factory.mktemp("engine")
    checkpoint = write_model(root / "checkpoint", files=sentence_transformers_files("mean"))
    export(checkpoint, root / "model", targets=["cpu", "tensorrt", "tensorrt-bf16"], verify=False)
    return root / "model"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BGERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


@pytest.fixture
def machine(cache):
    return tensorrt_fake.Machine()


@pytest.fixture
def library(machine, monkeypatch):
    return tensorrt_fake.install(monkeypatch, machine)


def said():
    lines = []
    return lines, lines.append


def files(cache):
    return sorted(path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


@pytest.mark.parametrize("label", LIBRARIES)
def test_build_then_hit(folder, cache, machine, monkeypatch, label):
    tensorrt_fake.install(monkeypatch, machine, label)
    lines, say = said()
    options = BuildOptions(
        buckets=[64] if label.endswith("10.3") else [16, 64], tokens_per_batch=256, workspace=1 << 20
    )
    record = build_engine(folder, options, say)
    assert record.fused_attention == [3] * len(record.recipe.profiles)
    assert record.notes == []
    assert record.recipe.environment.gpu == "NVIDIA Fake 100"
    assert record.recipe.profiles[-1] == Profile(64, 4)
    assert any("Building engine" in line for line in lines)
    kinds = sorted(path.suffix for path in files(cache))
    assert kinds == ["", ".json", ".plan"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files(cache))
    assert all(path.stat().st_mode & 0o777 == 0o700 for path in [cache, *(p for p in cache.iterdir() if p.is_dir())])
    assert build_engine(folder, options, say) == record
    assert machine.builds == 1
    assert "in the cache" in lines[-1]
    assert machine.streams == machine.events == machine.allocated == {}


def test_force_builds_again(folder, library, machine, cache):
    options = BuildOptions(buckets=[16], tokens_per_batch=64)
    first = build_engine(folder, options, print)
    machine.fused = 5
    second = build_engine(folder, BuildOptions(buckets=[16], tokens_per_batch=64, force=True), print)
    assert (first.fused_attention, second.fused_attention) == ([3], [5])
    assert machine.builds == 2
    assert len([path for path in files(cache) if path.suffix == ".plan"]) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"gpu": ("NVIDIA Other", 9, 0, 132)},
        {"gpu": ("NVIDIA Fake 100", 8, 0, 132)},
        {"gpu": ("NVIDIA Fake 100", 9, 0, 66)},
        {"cuda_version": 13030},
    ],
)
def test_another_machine_builds_another_engine(folder, library, machine, change):
    options = BuildOptions(buckets=[16], tokens_per_batch=64)
    first = build_engine(folder, options, print)
    for name, value in change.items():
        setattr(machine, name, value)
    lines, say = said()
    second = build_engine(folder, options, say)
    assert machine.builds == 2
    assert first.recipe.key() != second.recipe.key()
    assert any("building another" in line and "it was built for" in line for line in lines)


def test_every_option_is_part_of_the_key(folder, library, machine, cache):
    variants = [
        BuildOptions(buckets=[16], tokens_per_batch=64),
        BuildOptions(buckets=[32], tokens_per_batch=64),
        BuildOptions(buckets=[16], tokens_per_batch=128),
        BuildOptions(buckets=[16], tokens_per_batch=64, workspace=1 << 20),
        BuildOptions(buckets=[16], tokens_per_batch=64, level=4),
        BuildOptions(buckets=[16], tokens_per_batch=64, lean=True),
        BuildOptions(buckets=[16], tokens_per_batch=64, precision="bf16"),
    ]
    keys = {build_engine(folder, options, print).recipe.key() for options in variants}
    assert len(keys) == len(variants) == machine.builds


def test_another_version_builds_again(folder, machine, monkeypatch):
    options = BuildOptions(buckets=[16], tokens_per_batch=64)
    tensorrt_fake.install(monkeypatch, machine, "tensorrt 10.16")
    build_engine(folder, options, print)
    tensorrt_fake.install(monkeypatch, machine, "tensorrt 11.4")
    lines, say = said()
    build_engine(folder, options, say)
    assert machine.builds == 2
    assert any("built with TensorRT 10.16.1.11, here is 11.4.0.106" in line for line in lines)


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing", "record"])
def test_a_damaged_engine_is_built_again(folder, library, machine, cache, damage):
    options = BuildOptions(buckets=[16], tokens_per_batch=64)
    record = build_engine(folder, options, print)
    (plan,) = cache.rglob("*.plan")
    (about,) = cache.rglob("*.json")
    content = plan.read_bytes()
    if damage == "truncated":
        plan.write_bytes(content[:-1])
    elif damage == "changed":
        plan.write_bytes(content[:-1] + b"?")
    elif damage == "missing":
        plan.unlink()
    else:
        about.write_text("{")
    lines, say = said()
    assert build_engine(folder, options, say).sha256 == record.sha256
    assert machine.builds == 2
    assert any("building it again" in line for line in lines)
    assert next(cache.rglob("*.plan")).read_bytes() == content


def test_a_cache_that_others_can_write_is_refused(folder, library, cache):
    options = BuildOptions(buckets=[16], tokens_per_batch=64)
    build_engine(folder, options, print)
    cache.chmod(0o777)
    with pytest.raises(IntegrityError, match="mode 0700"):
        build_engine(folder, options, print)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("parse", r"cannot read .*Sub mask\.padding: unsupported.*parser says no"),
        ("build", "could not build the engine: Could not find any implementation"),
        ("deserialize", "does not load the engine that it built: The engine plan"),
        ("context", "no profile 0: out of memory"),
    ],
)
def test_a_failed_build_leaves_nothing(folder, library, machine, cache, fault, message):
    machine.fail = {fault}
    with pytest.raises(EngineError, match=message):
        build_engine(folder, BuildOptions(buckets=[16], tokens_per_batch=64), print)
    assert not [path for path in files(cache) if path.suffix in (".plan", ".json")]
    assert machine.streams == {}
    machine.fail = set()
    build_engine(folder, BuildOptions(buckets=[16], tokens_per_batch=64), print)


def test_ctrl_c_cancels_the_build(folder, library, machine, cache, monkeypatch):
    """The interrupt comes to the waiting thread while TensorRT works in the other."""
    building, cancelled = threading.Event(), threading.Event()
    join = threading.Thread.join

    def during_build():
        building.set()
        assert cancelled.wait(10)

    def interrupted(thread, timeout=None):
        if thread.name == "bgert-build" and not cancelled.is_set():
            assert building.wait(10)
            raise KeyboardInterrupt
        join(thread, timeout)

    def say(line):
        if "stopping" in line:
            cancelled.set()

    machine.during_build = during_build
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_engine(folder, BuildOptions(buckets=[16], tokens_per_batch=64), say)
    assert cancelled.is_set()
    assert not [path for path in files(cache) if path.suffix in (".plan", ".json")]
    assert not [thread for thread in threading.enumerate() if thread.name == "bgert-build"]


def test_two_builders(folder, library, machine):
    options = BuildOptions(buckets=[16], tokens_per_batch=64)
    problems = []

    def during_build():
        if not problems:
            with pytest.raises(EngineError, match=r"another build \(process \d+\)") as refused:
                build_engine(folder, options, print)
            problems.append(refused.value)

    machine.during_build = during_build
    build_engine(folder, options, print)
    assert problems
    assert machine.builds == 1


def test_timing_cache_is_kept_and_used(folder, library, machine, cache):
    build_engine(folder, BuildOptions(buckets=[16], tokens_per_batch=64), print)
    (path,) = (cache / "timing").iterdir()
    assert path.read_bytes() == b"timing"
    build_engine(folder, BuildOptions(buckets=[32], tokens_per_batch=64), print)
    assert path.read_bytes() == b"timingtiming"
    path.write_bytes(b"garbage")
    lines, say = said()
    build_engine(folder, BuildOptions(buckets=[48], tokens_per_batch=64), say)
    assert any("does not fit" in line for line in lines)
    assert path.read_bytes() == b"timing"


def test_attention_that_is_not_fused(folder, library, machine, cache):
    machine.fused = 2
    options = BuildOptions(buckets=[16, 64], tokens_per_batch=64)
    lines, say = said()
    record = build_engine(folder, options, say)
    assert record.fused_attention == [2, 2]
    assert sum("2 of 3 attention layers are fused" in line for line in lines) == 2
    with pytest.raises(EngineError, match="not fused as asked for"):
        build_engine(folder, BuildOptions(buckets=[16], tokens_per_batch=64, require_fused=True), print)
    assert len([path for path in files(cache) if path.suffix == ".plan"]) == 1
    # An engine in the cache is no way around the gate.
    with pytest.raises(EngineError, match="not fused as asked for"):
        build_engine(folder, BuildOptions(buckets=[16, 64], tokens_per_batch=64, require_fused=True), print)


def test_no_driver_no_library_no_gpu(folder, cache, machine, monkeypatch, capsys):
    """What is missing is said exactly, in one line, and nothing is written."""
    options = BuildOptions(buckets=[16], tokens_per_batch=64)
    tensorrt_fake.install(monkeypatch, machine, None)
    with pytest.raises(EngineNotInstalledError, match="tensorrt cannot be imported"):
        build_engine(folder, options, print)
    machine.devices = 0
    with pytest.raises(DeviceUnavailableError, match="The driver shows no device"):
        build_engine(folder, options, print)
    machine.driver = False
    with pytest.raises(DeviceUnavailableError, match="There is no NVIDIA driver here"):
        build_engine(folder, options, print)
    monkeypatch.setitem(__import__("sys").modules, "cuda.bindings", None)
    with pytest.raises(EngineNotInstalledError, match="cuda-bindings"):
        build_engine(folder, options, print)
    assert cli.main(["build", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "install the extra `tensorrt`" in error
    assert not cache.exists()


def test_old_versions(folder, machine, monkeypatch, cache):
    library = tensorrt_fake.install(monkeypatch, machine, "tensorrt 10.3")
    with pytest.raises(DeviceUnavailableError, match="wrong results with several profiles"):
        build_engine(folder, BuildOptions(buckets=[16, 32], tokens_per_batch=64), print)
    for version in ("10.2.0", "8.6.1", "12.0.0"):
        library.module.__version__ = version
        with pytest.raises(EngineNotInstalledError, match=r"bgert knows 10\.3 to 11\.x"):
            build_engine(folder, BuildOptions(buckets=[16], tokens_per_batch=64), print)
    assert not cache.exists()


def test_lean_engines_are_for_the_lean_runtime(folder, library, cache):
    record = build_engine(folder, BuildOptions(buckets=[16], tokens_per_batch=64, lean=True), print)
    assert record.fused_attention is None
    assert "not inspected" in record.notes[0]
    assert record.recipe.environment.library == "tensorrt_lean"
    plan = json.loads(EngineCache().load(record))
    assert plan["flags"] == ["EXCLUDE_LEAN_RUNTIME", "VERSION_COMPATIBLE"]


def test_a_damaged_graph_is_not_built(folder, library, cache, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    data = tmp_path / "copy" / "tensorrt-fp16.onnx.data"
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match="SHA-256"):
        build_engine(tmp_path / "copy", BuildOptions(buckets=[16], tokens_per_batch=64), print)
    assert not cache.exists()


def test_command_line(folder, library, capsys, tmp_path):
    assert cli.main(["build", str(folder), "--buckets", "16,64", "--tokens-per-batch", "128", "--workspace", "64"]) == 0
    assert "built in" in capsys.readouterr().out
    assert cli.main(["build", str(folder), "--dry-run", "--buckets", "16", "--tokens-per-batch", "128"]) == 0
    assert "length    16, 1 to   8 texts" in capsys.readouterr().out
    sample = tmp_path / "texts.txt"
    sample.write_text("file\n" * 30 + "read the file and write it to the folder which is in the path\n")
    assert cli.main(["build", str(folder), "--dry-run", "--lengths", str(sample)]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("length    16")
    for wrong in (
        ["--buckets", "16,x"],
        ["--buckets", "73"],
        ["--level", "6"],
        ["--workspace", "0"],
        ["--precision", "fp8"],
    ):
        assert cli.main(["build", str(folder), *wrong]) == 2
    for wrong in (
        ["--buckets", "16", "--lengths", str(sample)],
        ["--tokens-per-batch", "63"],
        ["--lean", "--require-fused"],
    ):
        assert cli.main(["build", str(folder), *wrong]) == 2


def test_a_folder_without_the_graph(demo_folder):
    with pytest.raises(InvalidOptionError, match="--target tensorrt"):
        plan_profiles(demo_folder, BuildOptions())


def test_building_needs_nothing_of_the_exporter():
    """A small machine builds its engine without onnx, torch or safetensors."""
    import subprocess
    import sys

    blocked = "import sys\nfor name in ('onnx', 'onnxruntime', 'torch', 'transformers', 'safetensors'):\n"
    blocked += "    sys.modules[name] = None\nimport bgert_export.tensorrt.engine, bgert_export.cli\n"
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_timing_cache_that_others_can_write_ends_the_build(folder, library, machine, cache):
    (cache / "timing").mkdir(parents=True, mode=0o700)
    cache.chmod(0o700)
    machine.during_build = lambda: (cache / "timing").chmod(0o777)
    with pytest.raises(IntegrityError, match="mode 0700"):
        build_engine(folder, BuildOptions(buckets=[16], tokens_per_batch=64), print)


def test_a_full_disk(folder, library, machine, cache, monkeypatch):
    from bgert.backends.tensorrt import engine_cache

    real = engine_cache._write_atomically

    def full(path, content):
        if path.suffix == ".json" or path.parent.name == "timing":
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(engine_cache, "_write_atomically", full)
    lines, say = said()
    with pytest.raises(EngineError, match="No space left on device"):
        build_engine(folder, BuildOptions(buckets=[16], tokens_per_batch=64), say)
    assert any("the timing cache is not kept" in line for line in lines)
    assert not [path for path in files(cache) if path.suffix == ".json"]
    monkeypatch.setattr(engine_cache, "_write_atomically", real)
    build_engine(folder, BuildOptions(buckets=[16], tokens_per_batch=64), say)
