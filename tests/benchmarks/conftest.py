"""The harness's modules as its commands import them, and peers that need no library but numpy."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

ADAPTER = """
import time
import numpy as np

def load(task):
    if task["options"].get("fail") == "load":
        raise RuntimeError("cannot load")
    return Engine(task)

class Engine:
    def __init__(self, task):
        self.options, self.mode = task["options"], task["mode"]
        self.settings = {"mode": self.mode, "precision": "bf16"}
        self.runs = 0
        if self.options.get("fail") == "spin":
            import threading
            threading.Thread(target=self.spin, daemon=True).start()

    def spin(self):
        while True:
            pass

    def encode(self, texts):
        print("a library that prints")
        self.runs += 1
        if self.options.get("fail") == "third run" and self.runs == 3:
            raise ValueError("out of luck")
        if self.options.get("fail") == "die":
            import os
            os._exit(3)
        if self.options.get("fail") == "hang":
            time.sleep(60)
        time.sleep(self.options.get("sleep", 0.001))
        return np.array([[len(text), 1.0] for text in texts], np.float32)
"""


@pytest.fixture(scope="session")
def adapter(tmp_path_factory):
    """Path of an adapter whose engine does what its options say."""
    path = tmp_path_factory.mktemp("adapters") / "stand_in.py"
    path.write_text(ADAPTER)
    return str(path)


@pytest.fixture
def make_peer(adapter):
    """A stand-in peer; `options` say how it fails or how long it takes."""
    from peer_list import Peer

    def make(name, *, two_modes=False, precision="fp32", **options):
        return Peer(name, name, name, adapter, precision=precision, two_modes=two_modes, options=options)

    return make


@pytest.fixture
def log(tmp_path):
    with (tmp_path / "log.txt").open("w") as opened:
        yield opened


@pytest.fixture
def make_job(tmp_path, log):
    """A measurement of two small sets."""
    import sys

    from measure import Job
    from text_sets import TextSet

    def make(peers, *, rounds=3, calls=(6, 3, 0), limit=120.0):
        sets = [TextSet("short", ["a", "bb"], [3, 4]), TextSet("mixed", ["ccc"] * 4, [5] * 4)]
        return Job(
            task={"kind": "encoder", "texts": str(tmp_path)},
            sets=sets,
            single={16: "word " * 14},
            flop={"short": 7_000, "mixed": 20_000},
            rounds=rounds,
            calls=calls,
            python={peer.name: sys.executable for peer in peers},
            gemm=None,
            folder=tmp_path,
            log=log,
            limit=limit,
            say=lambda line: None,
        )

    return make
