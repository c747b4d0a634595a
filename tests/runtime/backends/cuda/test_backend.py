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
from bgert.backends.cuda.packed_layout import InputPlan, graph_buckets
from bgert.backends.cuda_runtime import CudaRuntime
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
from cuda_fake import Machine, cuda_runtime
from onnxruntime_cuda_fake import FakeOnnxRuntime
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
def machine():
    return Machine(devices=2)


@pytest.fixture
def module(machine):
    return cuda_runtime(machine)


@pytest.fixture
def open_backend(folder, machine, module):
    """Opens a backend and gives its fake ONNX Runtime as `backend.fake`."""

    def opened(fake=None, **options):
        fake = fake or FakeOnnxRuntime(machine)
        options = {"device": 0, "pad_token_id": 0, "max_tokens": 64, "token_budget": 256, "graphs": False} | options
        backend = OnnxCudaBackend(
            folder, Manifest.read(folder).graph("cuda"), cuda=CudaRuntime(module=module), onnxruntime=fake, **options
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


def settled(machine):
    """Whether everything is given back within some seconds, by the device's own thread."""
    stop = time.monotonic() + 20
    while time.monotonic() < stop:
        if not (machine.allocated or machine.streams or machine.events):
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


def test_many_threads_share_the_ring(open_backend, machine, alone, rng):
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
    before = machine.launches
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rows, batch in zip(found, batches, strict=True):
        assert close_to(rows, alone(batch))
    assert machine.launches > before
    assert backend.fake.runs


def test_the_callers_thread_launches_graphs_waits_and_keeps_its_device(open_backend, machine, module, rng):
    """All else, ONNX Runtime's calls above all, is done by one thread of the device."""
    backend = open_backend(graphs=True, device=1)
    cuda, here = CudaRuntime(module=module), threading.get_ident()
    cuda.set_device(0)
    machine.calls.clear()
    backend.run(draw_batch(rng, 17, 6))
    mine = [name for name, thread in machine.calls if thread == here]
    assert mine == ["cudaGetDevice", "cudaSetDevice", "cudaEventSynchronize", "cudaSetDevice"]
    assert len({thread for _, thread in machine.calls}) == 2
    machine.calls.clear()
    cuda.set_device(1)
    for texts in (1, 3):
        backend.run(draw_batch(rng, texts, 20))
    lone = ["cudaGetDevice", "cudaGraphLaunch", "cudaEventRecord", "cudaEventSynchronize"]
    assert machine.calls == [(name, here) for name in ["cudaSetDevice", *lone, *lone]]


def test_the_next_batch_is_launched_while_one_computes(open_backend, module, rng):
    """With three callers, a second batch is queued on the device before the first is waited for."""
    backend = open_backend()
    first, queued = threading.Event(), threading.Event()
    original = module.cudaEventSynchronize

    def wait(event):
        first.set()
        assert queued.wait(10)
        return original(event)

    module.cudaEventSynchronize = wait
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


def test_small_batches_use_cuda_graphs(open_backend, machine, alone, rng):
    backend = open_backend(graphs=True, token_budget=1024)
    for lengths in ([10], [60], [3, 5, 2], [12] * 9, [7], [7], [64], [1], [60] * 12):
        batch, before = batch_of(rng, lengths), machine.launches
        assert close_to(backend.run(batch), alone(batch))
        assert machine.launches == before + 1
    assert backend.fake.runs == []
    backend.run(draw_batch(rng, 17, 6))
    assert len(backend.fake.runs) == 1


def test_a_pad_id_within_a_text_alone_is_no_template(open_backend, alone, rng, folder):
    """XLM-RoBERTa's positions skip it, so that more than the ids depends on the text."""
    plan = InputPlan(["input_ids", "position_ids_without_padding", "cu_seqlens"], pad_token_id=1)
    bucket = graph_buckets(64, 64)[1]
    for ids in ([0, 7, 8, 2], [0, 7, 1, 8, 2], [0, 9, 3, 2]):
        ids = np.array(ids, np.int32)
        batch = PackedBatch(ids, np.array([0, len(ids)], np.int32), np.zeros_like(ids))
        expected = np.full(plan.nbytes(bucket), 0, np.uint8)
        plan.fill(expected, batch, bucket)
        template = plan.template(bucket, batch)
        assert (template is None) == (1 in ids)
        if template is not None:
            block = template.copy()
            block[: 4 * len(ids)] = ids.view(np.uint8)
            np.testing.assert_array_equal(block, expected)


def test_a_small_batch_does_not_wait_for_another(open_backend, machine, alone, rng):
    backend = open_backend(graphs=True)
    taken = [backend._lanes.get() for _ in range(cuda_backend.LANES)]
    batch, before = draw_batch(rng, 1, 10), machine.launches
    assert close_to(backend.run(batch), alone(batch))
    assert (machine.launches, len(backend.fake.runs)) == (before, 1)
    for lane in taken:
        backend._lanes.put(lane)
    backend.run(batch)
    assert (machine.launches, len(backend.fake.runs)) == (before + 1, 1)


def test_a_graph_is_never_launched_in_the_middle_of_another_batch(open_backend, machine, alone, rng):
    """They share the activations; so the launcher queues it behind, and the caller does not stand in line itself."""
    backend = open_backend(graphs=True)
    large, small = draw_batch(rng, 17, 6), draw_batch(rng, 1, 10)
    found, threads = {}, []

    def run(name, batch):
        found[name] = backend.run(batch)

    def meanwhile():
        backend.fake.within_run = lambda: None
        threads.append(threading.Thread(target=run, args=["small", small]))
        threads[0].start()
        stop = time.monotonic() + 10
        while not backend._launcher._work.qsize() and time.monotonic() < stop:
            time.sleep(0.001)

    backend.fake.within_run = meanwhile
    before = machine.launches
    run("large", large)
    threads[0].join(20)
    assert close_to(found["large"], alone(large))
    assert close_to(found["small"], alone(small))
    assert machine.launches == before + 1


def test_larger_graphs_are_for_a_device_that_has_nothing_else(open_backend, machine, alone, rng):
    backend = open_backend(graphs=True, token_budget=1024)
    batch, small, before = batch_of(rng, [60] * 12), batch_of(rng, [30] * 9), machine.launches
    taken = backend._ring.get()  # as when another batch is at work
    assert close_to(backend.run(batch), alone(batch))
    assert (machine.launches, len(backend.fake.runs)) == (before, 1)
    assert close_to(backend.run(small), alone(small))
    assert (machine.launches, len(backend.fake.runs)) == (before + 1, 1)
    backend._ring.put(taken)
    assert close_to(backend.run(batch), alone(batch))
    assert (machine.launches, len(backend.fake.runs)) == (before + 2, 1)


@pytest.mark.parametrize("alone_there", [True, False])
def test_only_a_batch_alone_is_waited_for_in_a_loop(open_backend, machine, module, rng, alone_there):
    """It takes a core, for as long as the device works for everybody before."""
    backend = open_backend(graphs=True)
    lane = backend._session.lanes[0]
    taken = None if alone_there else backend._ring.get()
    waited = []
    original = module.cudaEventSynchronize
    module.cudaEventSynchronize = lambda event: waited.append(event) or original(event)
    backend.run(draw_batch(rng, 1, 10))
    assert waited == [(lane._spinning if alone_there else lane._sleeping).handle]
    assert taken is None or backend._ring.qsize() == cuda_backend.RING - 1


@pytest.mark.parametrize("fault", ["run", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphUpload", "memory"])
def test_graphs_that_cannot_be_captured_are_said_and_left(open_backend, machine, alone, rng, fault):
    fake = FakeOnnxRuntime(machine)
    words = f"{fault} failed"
    if fault == "run":
        words = "CUDA failure 900: operation not permitted"
        fake.capture_error = f"{words} when stream is capturing ; x"
    elif fault == "memory":
        words = "cudaMalloc failed: cudaErrorMemoryAllocation"
        machine.faults["cudaMalloc"] = [0] * (2 * cuda_backend.RING + 1) + [2]
    else:
        machine.faults[fault] = [0, 0, 1]
    with pytest.warns(DeviceWarning, match=f"graphs are off .*{words}") as said:
        backend = open_backend(fake, graphs=True)
    assert said[0].filename == __file__
    before = machine.launches
    batch = draw_batch(rng, 1, 10)
    assert close_to(backend.run(batch), alone(batch))
    assert (machine.launches, machine.graphs) == (before, {})
    assert len(machine.allocated) == 4 * cuda_backend.RING


def test_a_run_that_allocates_or_waits_cannot_be_captured(open_backend, machine, module):
    fake = FakeOnnxRuntime(machine)
    fake.in_capture = lambda: module.cudaMalloc(64)
    with pytest.warns(DeviceWarning, match="graphs are off .*cudaErrorStreamCaptureInvalidated"):
        open_backend(fake, graphs=True)


@pytest.mark.parametrize("part", range(4))
def test_a_graph_with_other_numbers_than_the_model_is_not_used(open_backend, module, alone, rng, part):
    """As when a part of the work got past the capture: the copies, or something of the model."""
    original = module.cudaStreamEndCapture

    def without_a_part(stream):
        error, (kind, work) = original(stream)
        assert len(work) == 4
        return error, (kind, work[:part] + work[part + 1 :])

    module.cudaStreamEndCapture = without_a_part
    with pytest.warns(DeviceWarning, match="graphs are off .*gives other numbers than the model"):
        backend = open_backend(graphs=True)
    batch = draw_batch(rng, 1, 10)
    assert close_to(backend.run(batch), alone(batch))


def test_ctrl_c_between_launch_and_end_leaves_no_buffer_in_use(open_backend, machine, module, alone, rng):
    """Who got a lane or a slot too early would have another batch's numbers."""
    backend = open_backend(graphs=True)
    original = module.cudaEventSynchronize

    def interrupted(event):
        raise KeyboardInterrupt

    for texts in (1, 17):
        module.cudaEventSynchronize = interrupted
        with pytest.raises(KeyboardInterrupt):
            backend.run(draw_batch(rng, texts, 6))
        module.cudaEventSynchronize = original
        backend._launcher.submit(int).result(20)
        assert not any(machine.streams.values())
        assert (backend._ring.qsize(), backend._lanes.qsize()) == (cuda_backend.RING, cuda_backend.LANES)
        batch = draw_batch(rng, texts, 6)
        assert close_to(backend.run(batch), alone(batch))


@pytest.mark.parametrize("call", ["cudaGraphLaunch", "cudaEventRecord", "cudaEventSynchronize"])
def test_a_graph_that_fails_is_raised_and_the_next_works(open_backend, machine, alone, rng, call):
    backend = open_backend(graphs=True)
    batch = draw_batch(rng, 1, 10)
    machine.faults[call] = [1]
    with pytest.raises(EngineError, match=f"{call} failed"):
        backend.run(batch)
    assert close_to(backend.run(batch), alone(batch))
    machine.faults[call] = [719]
    for _ in range(2):
        with pytest.raises(DeviceLostError, match="719"):
            backend.run(batch)


def test_nothing_grows_over_mixed_batches(open_backend, machine, rng):
    backend = open_backend(graphs=True)
    before = {address: len(block) for address, (block, _, _) in machine.allocated.items()}
    handles = len(machine.streams), len(machine.events), len(machine.graphs)
    for _ in range(60):
        backend.run(draw_batch(rng, rng.randint(1, 12), rng.choice([3, 20, 60])))
    assert {address: len(block) for address, (block, _, _) in machine.allocated.items()} == before
    assert (len(machine.streams), len(machine.events), len(machine.graphs)) == handles
    assert backend._ring.qsize() == cuda_backend.RING
    assert backend._lanes.qsize() == cuda_backend.LANES


def test_a_batch_beyond_the_budget_is_split(open_backend, alone, rng):
    backend = open_backend()
    for batch in (draw_batch(rng, 40), draw_batch(rng, 300, 2)):
        assert close_to(backend.run(batch), alone(batch))
    assert len(backend.fake.runs) > 2
    assert max(tokens for _, tokens, _ in backend.fake.runs) <= 272


def test_out_of_memory_splits_and_goes_on(open_backend, machine, alone, rng):
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


def test_opening_takes_the_budget_that_fits(open_backend, machine):
    fake = FakeOnnxRuntime(machine, fit_tokens=140)
    with pytest.warns(DeviceWarning, match="at most 128 tokens"):
        backend = open_backend(fake)
    assert backend.info.token_budget == 128


def test_a_model_that_does_not_fit(folder, open_backend, machine):
    machine.memory_limit = 10_000
    with pytest.raises(
        DeviceMemoryError, match=r"cuda-fp16.onnx does not fit on cuda:0, where .* of 10,000 bytes are free"
    ):
        open_backend()
    assert settled(machine)


@pytest.mark.parametrize("calls", range(7))
def test_memory_that_ends_while_opening_is_given_back(open_backend, machine, calls):
    machine.faults["cudaMalloc"] = [0] * calls + [2]
    if calls >= 6:
        open_backend()
        return
    with pytest.raises(DeviceMemoryError):
        open_backend()
    assert settled(machine)


def test_a_lost_device(open_backend, rng):
    backend = open_backend()
    backend.fake.failures = ["cuda_call.cc:146 CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; x"]
    for _ in range(2):
        with pytest.raises(DeviceLostError, match=r"cuda:0 is lost .* start it again: CUDA failure 700: an illegal"):
            backend.run(draw_batch(rng, 2))
    assert backend.fake.runs == []


def test_a_device_that_is_lost_while_it_is_waited_for(open_backend, machine, rng):
    backend = open_backend()
    machine.faults["cudaEventSynchronize"] = [719]
    for _ in range(2):
        with pytest.raises(DeviceLostError, match="719"):
            backend.run(draw_batch(rng, 2))


@pytest.mark.parametrize("call", ["upload", "run", "download"])
def test_any_other_failure_leaves_the_backend_whole(open_backend, alone, machine, rng, call):
    """Work that was queued before the failure reads the slot: it must be past before the slot is filled again."""
    backend = open_backend()
    batches = [draw_batch(rng, texts) for texts in (7, 3, 1, 5, 2, 6)]
    if call == "run":
        backend.fake.failures = ["Non-zero status code returned while running Gemm node"]
    else:
        machine.faults["cudaMemcpyAsync"] = [1] if call == "upload" else [0, 1]
    others = [backend._ring.get() for _ in range(cuda_backend.RING - 1)]  # every batch has the same slot
    words = r"failed on .*cuda-fp16.onnx: Non-zero status" if call == "run" else "cudaMemcpyAsync failed"
    with pytest.raises(EngineError, match=words):
        backend.run(batches[0])
    for batch in batches[1:]:
        assert close_to(backend.run(batch), alone(batch))
    assert backend._ring.qsize() == cuda_backend.RING - len(others)


def test_the_cpu_provider_is_never_taken_instead(open_backend, machine):
    with pytest.raises(DeviceUnavailableError, match="would use the CPU instead"):
        open_backend(FakeOnnxRuntime(machine, providers=()))
    assert settled(machine)


def test_the_first_device_is_not_named_and_warnings_are_left_alone(open_backend, machine):
    """ONNX Runtime warns at every opening where the options name a device."""
    fake = FakeOnnxRuntime(machine)
    first, second = (open_backend(fake, device=number) and fake.sessions[-1] for number in (0, 1))
    assert ("device_id" in first.given, first.severity) == (False, 2)
    assert (second.given["device_id"], second.severity) == ("1", 3)
    assert fake.severity == 2


def test_why_the_provider_does_not_start_is_written(open_backend, machine):
    """ONNX Runtime says it in a warning, so that device is opened again without silence."""
    fake = FakeOnnxRuntime(machine, providers=())
    with pytest.raises(DeviceUnavailableError, match="would use the CPU instead"):
        open_backend(fake, device=1)
    assert [session.severity for session in fake.sessions] == [3, 2]
    assert fake.severity == 2


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


def test_a_dropped_backend_gives_everything_back(open_backend, machine, rng):
    backend = open_backend(graphs=True)
    backend.run(draw_batch(rng, 3))
    gone, launcher = weakref.ref(backend), backend._launcher
    del backend
    gc.collect()
    assert gone() is None
    launcher.join(20)
    assert (machine.allocated, machine.streams, machine.events, machine.graphs) == ({}, {}, {}, {})


def test_a_backend_may_be_dropped_in_the_middle_of_anything(open_backend, machine, rng):
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


def test_devices_work_side_by_side_and_rows_keep_their_order(folder, open_backend, machine, alone, rng, monkeypatch):
    fake = FakeOnnxRuntime(machine)
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


def test_pairs_on_the_reranker(make_reranker_checkpoint, tmp_path, machine, module):
    export(make_reranker_checkpoint(1), tmp_path / "model", targets=["cpu", "cuda"], verify=False)
    manifest = Manifest.read(tmp_path / "model")
    reranker = Reranker(tmp_path / "model", device="cpu")
    pairs = [("which file", "the text of the file"), ("copy", "none"), ("a b c d e", "true " * 30)] * 7
    expected = reranker.score(pairs)
    reranker._runner.backend = OnnxCudaBackend(
        tmp_path / "model", manifest.graph("cuda"), device=1, pad_token_id=0, max_tokens=64, token_budget=256,
        cuda=CudaRuntime(module=module), onnxruntime=FakeOnnxRuntime(machine),
    )  # fmt: skip
    found = reranker.score(pairs)
    assert found.info.device == "cuda:1"
    assert np.abs(found - expected).max() < 0.02
    assert len(set(np.asarray(expected).round(4))) > 2
