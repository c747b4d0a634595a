"""Threads: equal results, concurrent calls, changing lists and forks."""

import os
import random
import threading

import numpy as np
import pytest

from bgert.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(demo_checkpoint):
    return Tokenizer.from_folder(demo_checkpoint)


@pytest.fixture(scope="module")
def texts():
    rng = random.Random(7)
    words = ["alpha", "beta", "gamma", "unbelievable", "日本", "é", "[MASK]", "supercalifragilistic", "x" * 90, "."]
    return [" ".join(rng.choice(words) for _ in range(rng.randrange(150))) for _ in range(2000)]


def same(a, b):
    names = ("ids", "cu_seqlens", "type_ids", "truncated")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


@pytest.mark.parametrize("threads", [2, 3, 8, 200])
def test_the_number_of_threads_changes_nothing(tokenizer, texts, threads):
    for pairs in (None, texts[::-1]):
        for max_length in (None, 33):
            expected = tokenizer.encode_batch(texts, pairs, max_length=max_length, threads=1)
            assert same(tokenizer.encode_batch(texts, pairs, max_length=max_length, threads=threads), expected)
    assert same(tokenizer.encode_batch(texts), tokenizer.encode_batch(texts, threads=1))


def test_concurrent_calls(tokenizer, texts):
    expected = tokenizer.encode_batch(texts, threads=1)
    wrong = []

    def work():
        wrong.extend(i for i in range(5) if not same(tokenizer.encode_batch(texts, threads=2), expected))

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_list_that_changes_during_the_call(tokenizer):
    texts = [f"text number {i} é" for i in range(20_000)]
    stop = threading.Event()

    def change():
        while not stop.is_set():
            texts.clear()
            texts.extend(f"text number {i} é" for i in range(20_000))

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(20):
            batch = tokenizer.encode_batch(texts, threads=2)
            assert len(batch.cu_seqlens) == len(batch) + 1
    finally:
        stop.set()
        changer.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_child_of_a_fork_encodes_while_the_parent_does(tokenizer, texts):
    expected = tokenizer.encode_batch(texts, threads=1)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            tokenizer.encode_batch(texts, threads=2)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    status = 0 if same(tokenizer.encode_batch(texts, threads=2), expected) else 2
                finally:
                    os._exit(status)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
    finally:
        stop.set()
        for worker in workers:
            worker.join()
