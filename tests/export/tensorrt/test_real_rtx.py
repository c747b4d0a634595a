"""The real builder of TensorRT for RTX, which needs neither GPU nor driver.

It proves that a TensorRT compiler reads and types the graphs, takes the profiles, fuses attention and norms on its
architectures, and plans the memory that is stated. It computes nothing: numbers, speed and loading need a GPU.
"""

import hashlib
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

trt = pytest.importorskip(
    "tensorrt_rtx", reason="TensorRT for RTX is not installed: install the extra `tensorrt-rtx`", exc_type=ImportError
)
onnx = pytest.importorskip("onnx")

from bgert.backends.tensorrt.engine_cache import EngineCache  # noqa: E402
from bgert.backends.tensorrt.library import Log  # noqa: E402
from bgert.commands import main as cli  # noqa: E402
from bgert.errors import EngineError  # noqa: E402
from bgert.model_folder import Manifest  # noqa: E402
from bgert_export import export  # noqa: E402
from bgert_export.tensorrt.buckets import device_bytes  # noqa: E402
from bgert_export.tensorrt.builder import EngineBuilder, attention_layers  # noqa: E402
from bgert_export.tensorrt.engine import BuildOptions, build_engine  # noqa: E402
from bgert_export.tensorrt.fusion import fused_in_list  # noqa: E402

FIVE = ("sm80", "sm86", "sm89", "sm120", "sm121")
SHAPES = {"buckets": [16, 64], "tokens_per_batch": 256}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BGERT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folders(write_model, sentence_transformers_files, make_reranker_checkpoint, tmp_path_factory):
    root = tmp_path_factory.mktemp("real-rtx")
    made = {}
    for pooling in ("mean", "cls"):
        checkpoint = write_model(root / f"{pooling}-checkpoint", files=sentence_transformers_files(pooling))
        made[pooling] = root / pooling
        export(checkpoint, made[pooling], targets=["cpu", "tensorrt", "tensorrt-bf16"], verify=False)
    made["reranker"] = root / "reranker"
    export(make_reranker_checkpoint(1), made["reranker"], targets=["tensorrt", "tensorrt-bf16"], verify=False)
    return made


def options(*targets, **other):
    return BuildOptions(**{**SHAPES, "targets": targets, "require_fused": True} | other)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("kind", ["mean", "cls", "reranker"])
def test_every_graph_builds_fused_and_twice_the_same(folders, kind, precision):
    first = build_engine(folders[kind], options(*FIVE, precision=precision), print)
    wanted = attention_layers(Manifest.read(folders[kind]))
    assert first.fused_attention == [wanted, wanted]
    assert first.notes == []
    assert first.activations is not None
    assert first.weights > 0
    again = build_engine(folders[kind], options(*FIVE, precision=precision, force=True), print)
    assert again.sha256 == first.sha256 == hashlib.sha256(EngineCache().load(again)).hexdigest()


@pytest.mark.parametrize("targets", [("any",), ("sm75",), ("sm121",)])
def test_other_targets(folders, targets):
    record = build_engine(folders["mean"], options(*targets), print)
    assert record.fused_attention == [3, 3]


def test_norms_and_gelu_are_fused_too(folders, monkeypatch):
    """Residual + LayerNorm is one kernel, and so is GELU with the product before it."""
    logs = []
    monkeypatch.setattr("bgert_export.tensorrt.builder.Log", lambda module: logs.append(Log(module)) or logs[-1])
    build_engine(folders["mean"], options("sm89", buckets=[64]), print)
    names = [line.split(",")[0] for line in logs[0].layers.splitlines()[1:]]
    norms = [name for name in names if "MeanSubMulMeanAddSqrtDivMul" in name]
    assert len(norms) == 2 * 3, names  # the embeddings, and two a layer but the last, which pooling takes in
    gelus = [name for name in names if "Erf" in name]
    assert len(gelus) == 3
    assert all("Fc" in name for name in gelus)


def test_the_demo_model_in_four_lengths(demo_checkpoint, tmp_path, capsys):
    export(demo_checkpoint, tmp_path / "minilm", targets=["tensorrt"], verify=False)
    assert cli.main(["build", str(tmp_path / "minilm"), "--for", "sm89,sm120", "--require-fused"]) == 0
    out = capsys.readouterr().out
    assert out.count("6 of 6 attention layers fused") == 4
    assert "sm89,sm120" in out
    assert "SHA-256" in out


def build_of(folder, tmp_path, graph_name="tensorrt-fp16.onnx", change=None, shapes=(16, 64)):
    """Fused layers and activations of a graph that `change` altered."""
    manifest = Manifest.read(folder)
    entry = manifest.graph("tensorrt", "fp16")
    path = folder / graph_name
    if change is not None:
        model = onnx.load(path)
        change(model)
        path = tmp_path / "changed.onnx"
        onnx.save(model, path)
    from bgert.backends.tensorrt.library import import_builder, without_gpu
    from bgert.backends.tensorrt.recipe import RTX, Profile, Recipe

    module = import_builder(RTX)
    here = without_gpu(module, "sm89")
    texts, length = shapes
    recipe = Recipe("x", "fp16", here, [Profile(length, texts)], None, 3)
    builder = EngineBuilder(module, None, EngineCache(), recipe, here, print)
    builder._plan(path, entry, lean=False)
    return fused_in_list(builder._log.layers, 1)[0], builder._log.activations[0]


def inputs_of(model, op):
    return [node for node in model.graph.node if node.op_type == op]


def attention_in_float32(model):
    """Scores are computed from operands cast to float32, and the context is cast back."""
    graph, added = model.graph, []
    names = {node.name for node in graph.node if node.op_type in ("Softmax",)}
    assert names
    for node in list(graph.node):
        products = node.op_type == "MatMul" and (".attention.scores" in node.name or ".attention.heads" in node.name)
        if products or (node.op_type == "Add" and ".attention.masked" in node.name):
            for index, value in enumerate(list(node.input)):
                if value.startswith(node.name.split(".attention.")[0] + ".attention.") and value.endswith(
                    (".scores", ".masked", ".shares")
                ):
                    continue  # float32 already
                cast = onnx.helper.make_node("Cast", [value], [f"{node.name}.{index}.wide"], to=onnx.TensorProto.FLOAT)
                added.append((node, cast))
                node.input[index] = cast.output[0]
        if node.op_type == "MatMul" and ".attention.heads" in node.name:
            back = onnx.helper.make_node(
                "Cast", [f"{node.output[0]}.wide"], [node.output[0]], to=onnx.TensorProto.FLOAT16
            )
            node.output[0] = back.input[0]
            added.append((None, back, node))
    for item in added:
        position = list(graph.node).index(item[0] if item[0] is not None else item[2])
        graph.node.insert(position + (item[0] is None), item[1])


def maximum_subtracted(model):
    """What a hand-written stable softmax does before Softmax does it again."""
    graph = model.graph
    for node in inputs_of(model, "Softmax"):
        position = list(graph.node).index(node)
        scores = node.input[0]
        most = onnx.helper.make_node("ReduceMax", [scores, "softmax.axis"], [f"{scores}.most"], keepdims=1)
        less = onnx.helper.make_node("Sub", [scores, most.output[0]], [f"{scores}.less"])
        node.input[0] = less.output[0]
        graph.node.insert(position, less)
        graph.node.insert(position, most)
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1], np.int64), "softmax.axis"))


@pytest.mark.parametrize("change", [attention_in_float32, maximum_subtracted])
def test_an_unfused_graph_fails_the_gate(folders, tmp_path, change):
    """The gate can fail: the compiler says so in the layers' names, and in the scratch that scores need."""
    fused, scratch = build_of(folders["mean"], tmp_path)
    assert fused == 3
    changed, more = build_of(folders["mean"], tmp_path, change=change)
    assert changed < 3
    assert more >= scratch


def test_what_a_build_refuses(folders, tmp_path):
    with pytest.raises(EngineError, match=r"Plugin not found"):
        build_of(folders["mean"], tmp_path, "cpu-fp32.onnx")

    def mixed(model):
        (node,) = [node for node in model.graph.node if node.name == "encoder.layer.0.output.sum"]
        node.input[1] = node.input[1].removesuffix(".float32")

    def missing(model):
        del model.graph.initializer[-1]

    for change in (mixed, missing):
        with pytest.raises(EngineError, match=r"cannot read|could not build") as refused:
            build_of(folders["mean"], tmp_path, change=change)
        assert "catchCudaError" not in str(refused.value)
        assert "\n" not in str(refused.value)


def test_ctrl_c(folders, monkeypatch):
    join = threading.Thread.join
    seen = []

    def interrupted(thread, timeout=None):
        if thread.name == "bgert-build" and not seen:
            seen.append(thread)
            raise KeyboardInterrupt
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_engine(folders["mean"], options("any"), print)
    assert not seen[0].is_alive()
    assert not list(EngineCache().root.rglob("*.plan"))


def test_the_runtime_without_a_driver(folders):
    """Header checks, in words; nothing crashes. On a machine with a GPU this is not the question."""
    if os.path.exists("/dev/nvidia0"):  # noqa: PTH110
        pytest.skip("there is a GPU here")
    plan = EngineCache().load(build_engine(folders["mean"], options("any"), print))
    runtime = trt.Runtime(Log(trt).logger)
    assert runtime.engine_header_size == 64
    for content in (plan, plan[:1000], b"", bytes(200)):
        assert runtime.deserialize_cuda_engine(content) is None
    invalid = trt.EngineValidity.INVALID
    assert runtime.get_engine_validity(bytes(64)) == (invalid, int(trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE))
    assert runtime.get_engine_validity(plan[:64])[0] == invalid


def test_planned_memory_is_what_the_guide_estimates(folders):
    """`--dry-run` and docs/EDGE.md against the builder's own figure, where attention is fused."""
    manifest = Manifest.read(folders["cls"])
    record = build_engine(folders["cls"], options("sm89", buckets=[16, 64], tokens_per_batch=8192), print)
    for profile, planned in zip(record.recipe.profiles, record.activations, strict=True):
        estimate = device_bytes(manifest.architecture, profile)["fused"]
        assert 0.9 * planned <= estimate <= 1.1 * planned, (profile, planned, estimate)


def test_a_small_machine_builds_with_the_library_alone(folders, tmp_path):
    """No onnx, torch, onnxruntime or cuda-bindings: numpy and TensorRT for RTX."""
    code = (
        "import sys\nfor name in ('onnx', 'onnxruntime', 'torch', 'transformers', 'safetensors', 'cuda'):\n"
        "    sys.modules[name] = None\nfrom bgert.commands.main import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, "build", str(folders["cls"]), "--for", "any"]
    done = subprocess.run([*command, "--buckets", "16", "--tokens-per-batch", "64"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 attention layers fused" in done.stdout


def test_the_api_is_the_one_the_fake_has():
    """`tests/tensorrt_api.json` was read over stand-in libraries; here are the real ones."""
    from cuda_fake import API

    for owner, members in API["libraries"]["tensorrt_rtx 1.7"]["classes"].items():
        target = getattr(trt, owner) if owner else trt
        for member, about in members.items():
            value = getattr(target, member)
            if "value" in about:
                assert int(value) == about["number"], (owner, member)
