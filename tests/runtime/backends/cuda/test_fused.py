"""The CUDA backend with a graph of bgert's own operators, on the stand-ins of test_backend.py."""

import numpy as np
import pytest

from bgert.backends.cuda.backend import OPERATORS, OnnxCudaBackend
from bgert.backends.cuda_runtime import CudaRuntime
from bgert.batching import PackedBatch
from bgert.model_folder import Manifest
from bgert_export import export
from cuda_fake import Machine, cuda_runtime
from onnxruntime_cuda_fake import FakeOnnxRuntime
from packed_reference import PackedReference, feeds_of


@pytest.fixture(scope="module", params=["cls", "mean"])
def folder(request, write_model, make_config, make_weights, sentence_transformers_files, tmp_path_factory):
    root = tmp_path_factory.mktemp("fused")
    config = make_config(num_attention_heads=2, hidden_size=64, num_hidden_layers=2)
    weights = {name: np.clip(value, -2, 2) for name, value in make_weights(config).items()}
    files = sentence_transformers_files(request.param)
    checkpoint = write_model(root / "checkpoint", config=config, weights=weights, files=files)
    export(checkpoint, root / "model", targets=["cuda-fused"], verify=False)
    return root / "model"


def opened(folder, **options):
    fake = FakeOnnxRuntime(Machine())
    options = {"device": 0, "pad_token_id": 0, "max_tokens": 64, "token_budget": 256, "graphs": False} | options
    cuda = CudaRuntime(module=cuda_runtime(fake.machine))
    return OnnxCudaBackend(folder, Manifest.read(folder).graph("cuda"), cuda=cuda, onnxruntime=fake, **options), fake


def batch_of(*lengths):
    cuts = np.cumsum([0, *lengths]).astype(np.int32)
    ids = np.random.default_rng(1).integers(5, 120, cuts[-1]).astype(np.int32)
    return PackedBatch(ids, cuts, np.zeros_like(ids))


@pytest.mark.parametrize("graphs", [False, True])
def test_a_graph_of_own_operators_runs_and_the_backend_says_so(folder, graphs):
    backend, _ = opened(folder, graphs=graphs)
    assert backend.info.engine == "onnxruntime-gpu 1.31.1, bgert operators"
    graph = Manifest.read(folder).graph("cuda")
    reference = PackedReference(folder / graph.files[0].name, "rounded")
    for batch in (batch_of(3), batch_of(5, 60, 1, 17), batch_of(64, 64, 64)):
        texts = np.split(batch.input_ids, batch.cu_seqlens[1:-1])
        expected = np.concatenate([reference.run(feeds_of(graph.inputs, [ids]))[:1] for ids in texts])
        np.testing.assert_allclose(backend.run(batch), expected, rtol=1e-5, atol=1e-6)


def test_products_are_timed_at_open_for_every_power_of_two(folder):
    """The first batch of a size times algorithms: no caller waits for that."""
    _, fake = opened(folder, max_tokens=64, token_budget=4096)
    sizes = [tokens for _, tokens, _ in fake.runs]
    assert sizes[:3] == [4096, 1024, 2048]


def test_the_library_of_operators_is_beside_the_tokenizer():
    assert OPERATORS.is_file()
