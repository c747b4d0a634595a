"""The CUDA backend on a strict stand-in of CUDA and ONNX Runtime that evaluates the real graph in numpy.

What no GPU has run is what the stand-ins stand for: the kernels, and that CUDA keeps its word.
"""

import gc
import multiprocessing
import os
import threading
import time
import warnings
import weakref

import numpy as np
import pytest

from bgert import Encoder, Reranker
from bgert.backends.cuda import backend as cuda_backend
from bgert.backends.cuda.backend import OnnxCudaBackend
from bgert.backends.cuda.device_pool import DevicePool
from bgert.backends.cuda_memory import CudaRuntime
from bgert.backends.onnx_cpu import OnnxCpuBackend
from bgert.batching import PackedBatch
from bgert.errors import (
    DeviceLostError,
    DeviceMemoryError,
    DeviceUnavailableError,
    DeviceWarning,
    EngineError,
    InvalidOptionError,
)
from bgert.model_folder import Manifest
from bgert_export import export
from fake_cuda import FakeCudart, FakeOnnxRuntime
from packed_reference import PackedReference, feeds_of

VOCABULARY = 120


@pytest.fixture(scope="module")
def folder(write_model, make_config, make_weights, sentence_transformers_files, tmp_path_factory):
    """A model whose vectors of different texts are far apart: mean pooling, and no outlier channels."""
    root = tmp_path_factory.mktemp("cuda")
    weights = {name: np.clip(value, -2, 2) for name, value in make_weights(make_config()).items()}
    checkpoint = write_model(root / "checkpoint", weights=weights, files=sentence_transformers_files("mean"))
    export(checkpoint, root / "model", targets=["cpu", "cuda"], verify=False)
    return root / "model"


@pytest.fixture(scope="module")
def cpu(folder):
    manifest = Manifest.read(folder)
    return OnnxCpuBackend(
        folder, manifest.graph("cpu"), manifest.architecture, columns=manifest.columns, threads=1, mode="throughput"
    )


@pytest.fixture(scope="module")
def alone(folder):
    """Rows of a batch, each text by itself, from the same evaluator and past the backend."""
    names = Manifest.read(folder).graph("cuda").inputs
    reference = PackedReference(folder / "cuda-fp16.onnx", "rounded")

    def rows(batch):
        ids = np.split(batch.input_ids, batch.cu_seqlens[1:-1])
        return np.concatenate([reference.run(feeds_of(names, [text]))[:1] for text in ids])

    return rows


@pytest.fixture
def cudart():
    return FakeCudart(devices=2)


@pytest.fixture
def open_backend(folder, cudart):
    """Opens a backend and gives its fake ONNX Runtime as `backend.fake`."""

    def opened(fake=None, **options):
        fake = fake or FakeOnnxRuntime(cudart)
        options = {"device": 0, "pad_token_id": 0, "max_tokens": 64, "token_budget": 256, "graphs": False} | options
        backend = OnnxCudaBackend(
            folder, Manifest.read(folder).graph("cuda"), cuda=CudaRuntime(library=cudart), onnxruntime=fake, **options
        )
        backend.fake = fake
        fake.runs.clear()
        return backend

    return opened


def draw_batch(rng, texts, longest=60):
    return batch_of(rng, [rng.randint(2, longest) for _ in range(texts)])


def batch_of(rng, lengths):
    cuts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = np.array([rng.randrange(5, VOCABULARY) for _ in range(cuts[-1])], np.int32)
    return PackedBatch(ids, cuts, np.zeros_like(ids))


def settled(cudart):
    """Whether everything is given back within some seconds, by the device's own thread."""
    stop = time.monotonic() + 20
    while time.monotonic() < stop:
        if not (cudart.live or cudart.streams or cudart.events):
            return True
        time.sleep(0.01)
    return False


def close_to(found, expected):
    """Up to some roundings to float16."""
    return found.shape == expected.shape and found.dtype == np.float32 and np.abs(found - expected).max() < 2e-3


def test_rows_are_those_of_the_cpu(open_backend, cpu, alone, rng):
    backend = open_backend()
    assert backend.info.device == "cuda:0"
    assert backend.info.precision == "fp16"
    assert backend.info.engine == "onnxruntime-gpu 1.31.1"
    many = alone(draw_batch(rng, 40))
    distances = np.abs(many[:, None] - many).max(axis=2)
    assert np.median(distances) > 0.02  # so that another text's row would be noticed
    for texts in (1, 2, 3, 5, 5, 1):
        batch = draw_batch(rng, texts)
        found = backend.run(batch)
        assert (found * cpu.run(batch)).sum(1).min() > 0.9995
        expected = alone(batch)
        assert close_to(found, expected)


def test_many_threads_share_the_ring(open_backend, alone, rng):
    """Nothing is done before it is waited for, so a slot used again too early would give another batch's numbers."""
    backend = open_backend(graphs=True)
    batches = [draw_batch(rng, rng.randint(1, 5)) for _ in range(40)]
    found = [None] * len(batches)
    numbers = iter(range(len(batches)))
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            found[number] = backend.run(batches[number])

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rows, batch in zip(found, batches, strict=True):
        assert close_to(rows, alone(batch))
    assert {graph >= 0 for _, _, graph in backend.fake.runs} == {True, False}


def test_two_threads_make_every_cuda_call(open_backend, cudart, rng):
    backend = open_backend(graphs=True)
    backend.run(draw_batch(rng, 5))
    backend.run(draw_batch(rng, 1))
    callers = {thread for _, thread in cudart.calls}
    assert threading.get_ident() not in callers
    assert len(callers) == 2


def test_the_next_batch_is_launched_while_one_computes(open_backend, cudart, rng):
    """With three callers, a second batch is queued on the device before the first is waited for."""
    backend = open_backend()
    first, queued = threading.Event(), threading.Event()
    original = cudart.cudaEventSynchronize

    def wait(event):
        first.set()
        assert queued.wait(10)
        return original(event)

    cudart.cudaEventSynchronize = wait
    batches = [draw_batch(rng, 2) for _ in range(2)]
    rows = [None, None]

    def work(number):
        rows[number] = backend.run(batches[number])

    threads = [threading.Thread(target=work, args=[0])]
    threads[0].start()
    assert first.wait(10)
    backend.fake.before_run = queued.set  # the launch of the second
    threads.append(threading.Thread(target=work, args=[1]))
    threads[1].start()
    for thread in threads:
        thread.join(20)
    assert all(row is not None for row in rows)


def test_small_batches_use_cuda_graphs(open_backend, alone, rng):
    backend = open_backend(graphs=True, token_budget=1024)
    ids = []
    for lengths in ([10], [60], [3, 5, 2], [12] * 9, [7]):
        batch = batch_of(rng, lengths)
        assert close_to(backend.run(batch), alone(batch))
        ids.append(backend.fake.runs[-1][2])
    assert min(ids) >= 1
    assert len(set(ids)) == 4
    assert ids[0] == ids[-1]
    backend.run(draw_batch(rng, 17, 6))
    assert backend.fake.runs[-1][2] == -1


def test_a_small_batch_does_not_wait_for_another(open_backend, alone, rng):
    backend = open_backend(graphs=True)
    taken = backend._graph_slot.get()
    batch = draw_batch(rng, 1, 10)
    assert close_to(backend.run(batch), alone(batch))
    assert backend.fake.runs[-1][2] == -1
    backend._graph_slot.put(taken)
    backend.run(batch)
    assert backend.fake.runs[-1][2] >= 1


def test_graphs_that_cannot_be_captured_are_said_and_left(open_backend, cudart, alone, rng):
    fake = FakeOnnxRuntime(
        cudart, capture_error="CUDA failure 900: operation not permitted when stream is capturing ; x"
    )
    with pytest.warns(DeviceWarning, match="graphs are off .*CUDA failure 900: operation not permitted"):
        backend = open_backend(fake, graphs=True)
    assert fake.sessions[-1].given["enable_cuda_graph"] == "0"
    batch = draw_batch(rng, 1, 10)
    assert close_to(backend.run(batch), alone(batch))


def test_capturing_waits_for_running_batches_and_holds_new_ones():
    captures, order = cuda_backend._Captures(), []
    inside, leave = threading.Event(), threading.Event()

    def run():
        with captures.running():
            inside.set()
            leave.wait(10)
            order.append("ran")

    def capture():
        with captures.capturing():
            order.append("captured")

    threads = [threading.Thread(target=run), threading.Thread(target=capture)]
    threads[0].start()
    inside.wait(10)
    threads[1].start()
    leave.set()
    for thread in threads:
        thread.join()
    with captures.running():
        order.append("ran")
    assert order == ["ran", "captured", "ran"]


def test_nothing_grows_over_mixed_batches(open_backend, cudart, rng):
    backend = open_backend(graphs=True)
    before = {address: len(block) for address, (block, _, _) in cudart.live.items()}
    handles = len(cudart.streams), len(cudart.events)
    for _ in range(60):
        backend.run(draw_batch(rng, rng.randint(1, 12), rng.choice([3, 20, 60])))
    assert {address: len(block) for address, (block, _, _) in cudart.live.items()} == before
    assert (len(cudart.streams), len(cudart.events)) == handles
    assert backend._ring.qsize() == cuda_backend.RING
    assert backend._graph_slot.qsize() == 1


def test_a_batch_beyond_the_budget_is_split(open_backend, alone, rng):
    backend = open_backend()
    for batch in (draw_batch(rng, 40), draw_batch(rng, 300, 2)):
        assert close_to(backend.run(batch), alone(batch))
    assert len(backend.fake.runs) > 2
    assert max(tokens for _, tokens, _ in backend.fake.runs) <= 272


def test_out_of_memory_splits_and_goes_on(open_backend, cudart, alone, rng):
    backend = open_backend()
    backend.fake.fit_tokens = 100
    batch = batch_of(rng, [40, 39, 35, 30, 20, 6])
    with pytest.warns(DeviceWarning, match="at most .* tokens from now on"):
        rows = backend.run(batch)
    assert close_to(rows, alone(batch))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.fake.runs.clear()
        batch = batch_of(rng, [30, 28, 20, 20, 15, 9, 4, 2])
        assert close_to(backend.run(batch), alone(batch))
    assert backend._ring.qsize() == cuda_backend.RING


def test_a_single_text_that_does_not_fit(open_backend, alone, rng):
    backend = open_backend()
    backend.fake.fit_tokens = 20
    cuts = np.array([0, 50], np.int32)
    ids = np.full(50, 7, np.int32)
    with pytest.raises(DeviceMemoryError, match=r"a text of 50 tokens alone does not fit .*cuda:0.*max_length"):
        backend.run(PackedBatch(ids, cuts, ids))
    assert issubclass(DeviceMemoryError, MemoryError)
    backend.fake.fit_tokens = None
    batch = draw_batch(rng, 2, 20)
    assert close_to(backend.run(batch), alone(batch))


def test_opening_takes_the_budget_that_fits(open_backend, cudart):
    fake = FakeOnnxRuntime(cudart, fit_tokens=140)
    with pytest.warns(DeviceWarning, match="at most 128 tokens"):
        backend = open_backend(fake)
    assert backend.info.token_budget == 128


def test_a_model_that_does_not_fit(folder, open_backend, cudart):
    cudart.memory = 10_000
    with pytest.raises(
        DeviceMemoryError, match=r"cuda-fp16.onnx does not fit on cuda:0, where .* of 10,000 bytes are free"
    ):
        open_backend()
    assert settled(cudart)


@pytest.mark.parametrize("calls", range(9))
def test_memory_that_ends_while_opening_is_given_back(open_backend, cudart, calls):
    cudart.faults["cudaMalloc"] = [0] * calls + [2]
    if calls >= 8:
        open_backend()
        return
    with pytest.raises(DeviceMemoryError):
        open_backend()
    assert settled(cudart)


def test_a_lost_device(open_backend, rng):
    backend = open_backend()
    backend.fake.failures = ["cuda_call.cc:146 CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; x"]
    for _ in range(2):
        with pytest.raises(DeviceLostError, match=r"cuda:0 is lost .* start it again: CUDA failure 700: an illegal"):
            backend.run(draw_batch(rng, 2))
    assert backend.fake.runs == []


def test_a_device_that_is_lost_while_it_is_waited_for(open_backend, cudart, rng):
    backend = open_backend()
    cudart.faults["cudaEventSynchronize"] = [719]
    for _ in range(2):
        with pytest.raises(DeviceLostError, match="719"):
            backend.run(draw_batch(rng, 2))


@pytest.mark.parametrize("call", ["upload", "run", "download"])
def test_any_other_failure_leaves_the_backend_whole(open_backend, alone, cudart, rng, call):
    """Work that was queued before the failure reads the slot: it must be past before the slot is filled again."""
    backend = open_backend()
    batches = [draw_batch(rng, texts) for texts in (7, 3, 1, 5, 2, 6)]
    if call == "run":
        backend.fake.failures = ["Non-zero status code returned while running Gemm node"]
    else:
        cudart.faults["cudaMemcpyAsync"] = [1] if call == "upload" else [0, 1]
    others = [backend._ring.get() for _ in range(cuda_backend.RING - 1)]  # every batch has the same slot
    words = r"failed on .*cuda-fp16.onnx: Non-zero status" if call == "run" else "cudaMemcpyAsync failed"
    with pytest.raises(EngineError, match=words):
        backend.run(batches[0])
    for batch in batches[1:]:
        assert close_to(backend.run(batch), alone(batch))
    assert backend._ring.qsize() == cuda_backend.RING - len(others)


def test_the_cpu_provider_is_never_taken_instead(open_backend, cudart):
    with pytest.raises(DeviceUnavailableError, match="would use the CPU instead"):
        open_backend(FakeOnnxRuntime(cudart, providers=()))
    assert settled(cudart)


def test_memory_limit(open_backend, folder):
    backend = open_backend(memory_limit=10**9)
    assert backend.fake.sessions[0].given["gpu_mem_limit"] == "1000000000"
    assert "gpu_mem_limit" not in open_backend().fake.sessions[0].given
    with pytest.raises(InvalidOptionError, match="limit is 1,000 bytes, and the weights alone take"):
        open_backend(memory_limit=1000)


def test_a_forked_child_is_told(open_backend, rng):
    backend, batch = open_backend(), draw_batch(rng, 2)
    parent, child = multiprocessing.Pipe()

    def run():
        try:
            backend.run(batch)
        except DeviceUnavailableError as error:
            child.send(str(error))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forking with threads
        process = multiprocessing.get_context("fork").Process(target=run)
        process.start()
    assert parent.poll(20)
    assert "forked" in parent.recv()
    process.join(20)
    assert process.exitcode == 0
    assert backend.run(batch).shape == (2, 64)


def test_a_forked_child_destroys_nothing(open_backend):
    backend = open_backend(graphs=True)
    gone = weakref.ref(backend)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            del backend
            gc.collect()
            os._exit(0 if gone() is not None else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_dropped_backend_gives_everything_back(open_backend, cudart, rng):
    backend = open_backend(graphs=True)
    backend.run(draw_batch(rng, 3))
    gone, launcher = weakref.ref(backend), backend._launcher
    del backend
    gc.collect()
    assert gone() is None
    launcher.join(20)
    assert (cudart.live, cudart.streams, cudart.events) == ({}, {}, {})


def test_a_backend_may_be_dropped_in_the_middle_of_anything(open_backend, cudart, rng):
    """The collector may run inside a submit; what it then does must take no lock that is held there."""
    for _ in range(4):
        backend = open_backend()
        backend.itself = backend  # a cycle, which only the collector frees
        del backend
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        kept = open_backend()
        kept.run(draw_batch(rng, 2))
    finally:
        gc.set_threshold(*threshold)
    kept._launcher.submit(int).result(20)


def test_devices_work_side_by_side_and_rows_keep_their_order(folder, open_backend, cudart, alone, rng, monkeypatch):
    fake = FakeOnnxRuntime(cudart)
    backends = [open_backend(fake, device=number) for number in (0, 1)]
    pool = DevicePool(backends)
    assert (pool.info.device, pool.info.workers) == ("cuda:0,cuda:1", 2 * cuda_backend.RING)
    encoder = Encoder(folder, device="cpu")
    texts = [
        " ".join(rng.choice(["copy", "file", "the", "text"]) for _ in range(rng.randint(1, 50))) for _ in range(90)
    ]
    encoder._runner.backend = backends[0]
    expected = encoder.encode(texts)
    encoder._runner.backend = pool
    found = encoder.encode(texts)
    assert found.info.device == "cuda:0,cuda:1"
    assert close_to(np.asarray(found), np.asarray(expected))
    assert {device for device, _, _ in fake.runs} == {0, 1}


def test_pairs_on_the_reranker(make_reranker_checkpoint, tmp_path, cudart):
    export(make_reranker_checkpoint(1), tmp_path / "model", targets=["cpu", "cuda"], verify=False)
    manifest = Manifest.read(tmp_path / "model")
    reranker = Reranker(tmp_path / "model", device="cpu")
    pairs = [("which file", "the text of the file"), ("copy", "none"), ("a b c d e", "true " * 30)] * 7
    expected = reranker.score(pairs)
    reranker._runner.backend = OnnxCudaBackend(
        tmp_path / "model", manifest.graph("cuda"), device=1, pad_token_id=0, max_tokens=64, token_budget=256,
        cuda=CudaRuntime(library=cudart), onnxruntime=FakeOnnxRuntime(cudart),
    )  # fmt: skip
    found = reranker.score(pairs)
    assert found.info.device == "cuda:1"
    assert np.abs(found - expected).max() < 0.02
    assert len(set(np.asarray(expected).round(4))) > 2
