"""The loop between tokenizer and backend, with doubles of both."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from bgert.backends.protocol import BackendInfo
from bgert.errors import ModelFolderError, NonFiniteOutputError
from bgert.runner import Runner


class LengthTokenizer:
    """As many ids as characters, each the character's code."""

    def __init__(self, max_length=None):
        self.threads = []
        self.max_length = max_length

    def __call__(self, texts, first=0, cores=1):
        self.threads.append(threading.current_thread().name)
        cut = [text[: self.max_length] for text in texts]
        return SimpleNamespace(
            ids=np.array([ord(c) for text in cut for c in text], np.int32),
            cu_seqlens=np.cumsum([0, *map(len, cut)]).astype(np.int32),
            type_ids=np.zeros(sum(map(len, cut)), np.int32),
            truncated=np.array([len(text) != len(short) for text, short in zip(texts, cut, strict=True)]),
            seen=None,
        )


class SumBackend:
    """Row b is [sum of ids, number of ids]."""

    def __init__(self, workers=2, budget=8):
        self.info = BackendInfo("cpu", "fp32", "double", workers, budget)
        self.batches = []
        self.threads = set()

    def run(self, batch):
        self.batches.append(len(batch))
        self.threads.add(threading.current_thread().name)
        time.sleep(0.001)
        sums = np.add.reduceat(batch.input_ids, batch.cu_seqlens[:-1])
        return np.stack([sums, np.diff(batch.cu_seqlens)], 1).astype(np.float32)


def run(runner, lists, tokenize=None):
    blocks = []
    for window in runner.windows(iter(lists), tokenize or LengthTokenizer()):
        rows = np.full((len(window), 2), np.nan, np.float32)
        runner.run(window, rows.__setitem__)
        blocks.append(rows)
    return blocks


def expected(texts):
    return np.array([[sum(map(ord, text)), len(text)] for text in texts], np.float32)


def test_rows_come_back_in_the_callers_order_over_windows():
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print("seed", seed)
    draw = np.random.default_rng(seed)
    lists = [["x" * n for n in draw.integers(1, 12, count)] for count in (7, 1, 30, 2)]
    backend = SumBackend()
    for rows, texts in zip(run(Runner(backend, columns=2), lists), lists, strict=True):
        np.testing.assert_array_equal(rows, expected(texts))
    assert len(backend.threads) >= 2


def test_no_texts_make_no_window():
    assert run(Runner(SumBackend(), columns=2), []) == []


def test_the_next_window_is_tokenized_beside_the_current_one():
    tokenizer = LengthTokenizer()
    run(Runner(SumBackend(), columns=2), [["a"], ["b"]], tokenizer)
    assert all(name.startswith("bgert-tokenizer") for name in tokenizer.threads)
    tokenizer.threads.clear()
    run(Runner(SumBackend(), columns=2), [["a"]], tokenizer)
    assert tokenizer.threads == [threading.current_thread().name]


def test_truncation_is_reported_per_text():
    runner = Runner(SumBackend(), columns=2)
    (window,) = runner.windows(iter([["ab", "abcdef", "abc"]]), LengthTokenizer(max_length=3))
    assert window.truncated.tolist() == [False, True, False]
    assert window.tokens == 8


def test_a_row_that_is_not_finite_is_never_served():
    backend = SumBackend(workers=1)
    original = backend.run

    def poisoned(batch):
        rows = original(batch)
        rows[batch.input_ids[batch.cu_seqlens[:-1]] == ord("!")] = np.nan
        return rows

    backend.run = poisoned
    runner = Runner(backend, columns=2)
    with pytest.raises(NonFiniteOutputError, match="input 4"):
        run(runner, [["a", "b"], ["cccc", "dd", "!", "e"]])


def test_wrong_shape_from_the_engine():
    with pytest.raises(ModelFolderError, match="shape"):
        run(Runner(SumBackend(), columns=3), [["a"]])


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_in_a_worker_stops_the_others_and_reaches_the_caller(workers):
    backend = SumBackend(workers=workers, budget=1)
    original = backend.run

    def failing(batch):
        if len(backend.batches) >= 3:
            raise MemoryError("out of memory")
        return original(batch)

    backend.run = failing
    before = threading.active_count()
    with pytest.raises(MemoryError, match="out of memory"):
        run(Runner(backend, columns=2), [["a"] * 100])
    assert len(backend.batches) < 10
    assert threading.active_count() == before


def test_a_failing_source_of_texts_reaches_the_caller():
    def lists():
        yield ["a"]
        yield ["b"]
        raise OSError("source broke")

    with pytest.raises(OSError, match="source broke"):
        run(Runner(SumBackend(), columns=2), lists())


def test_progress_goes_by_tokens_and_ends_at_the_number_of_texts():
    """A long text first: half of the tokens are half of the way, though it is one text of eleven."""
    runner, told = Runner(SumBackend(workers=1, budget=10), columns=2), []
    (window,) = runner.windows(iter([["x" * 10, *["y"] * 10]]), LengthTokenizer())
    runner.run(window, lambda index, rows: None, told.append)
    assert told[0] == 5
    assert sum(told) == 11
