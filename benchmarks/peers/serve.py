"""The process of one peer: JSON lines in, JSON lines out. Runs in the peer's own virtual environment.

`python -m peers.serve ADAPTER` imports `peers/ADAPTER.py`, which offers `load(task)` and may offer `export(task)`:

- `load` returns an engine with `settings` (a dict for the results) and `encode(list[str])` giving float32[n, dim], or
  `score(list[(str, str)])` giving float32[n]. `task` says checkpoint, folders of exported models, kind, pooling,
  max_length, threads, mode and options.
- `export` writes the converted model that this peer, or others, load.

Between commands the process waits in a read.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np


def hand_over() -> Any:
    """The answer stream: standard output is kept for it alone, whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def peak_bytes() -> int:
    """Largest resident set so far (Linux), in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


def imported(adapter: str) -> Any:
    """The module `peers.<adapter>`, or the file where a path is given."""
    if not adapter.endswith(".py"):
        return importlib.import_module(f"peers.{adapter}")
    spec = importlib.util.spec_from_file_location("adapter", adapter)
    if spec is None or spec.loader is None:
        raise ImportError(adapter)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Server:
    """Answers commands; each method named `do_...` is one."""

    def __init__(self, adapter: str) -> None:
        self.adapter = imported(adapter)
        self.engine: Any = None
        self.texts: dict[str, list[Any]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do one command; whatever it raises is the answer."""
        begun = time.perf_counter()
        try:
            done: dict[str, Any] = getattr(self, "do_" + request.pop("do"))(**request)
        except Exception as error:
            traceback.print_exc()
            return {"error": f"{type(error).__name__}: {error}"}
        return done | {"seconds": time.perf_counter() - begun}

    def do_export(self, task: dict[str, Any]) -> dict[str, Any]:
        """Convert the model for this peer."""
        self.adapter.export(task)
        return {}

    def do_load(self, task: dict[str, Any]) -> dict[str, Any]:
        """Load the model, in place of the one before."""
        self.engine = None
        self.engine = self.adapter.load(task)
        return {"settings": self.engine.settings}

    def do_texts(self, name: str, path: str) -> dict[str, Any]:
        """Read a list of texts, or of pairs, and keep it under a name."""
        self.texts[name] = json.loads(Path(path).read_text(encoding="utf-8"))
        return {"count": len(self.texts[name])}

    def do_encode(self, name: str, vectors: str | None = None) -> dict[str, Any]:
        """One pass over a set; its outputs go to a file where one is named."""
        outputs = self._run(self.texts[name])
        if vectors is not None:
            np.save(vectors, outputs)
        return {"rows": len(outputs)}

    def do_latency(self, name: str, size: int, repeats: int, first: int) -> dict[str, Any]:
        """Seconds of `repeats` calls with `size` texts each, walking through a set from the one numbered `first`."""
        texts = self.texts[name]
        calls = []
        for call in range(repeats):
            start = first + call * size
            batch = [texts[number % len(texts)] for number in range(start, start + size)]
            begun = time.perf_counter()
            self._run(batch)
            calls.append(time.perf_counter() - begun)
        return {"calls": calls}

    def do_measure(self) -> dict[str, Any]:
        """What an adapter measures by itself."""
        result: dict[str, Any] = self.engine.measure()
        return result

    def do_memory(self) -> dict[str, Any]:
        """Peak resident memory."""
        return {"peak_rss_bytes": peak_bytes()}

    def _run(self, texts: list[Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
        if hasattr(self.engine, "score"):
            texts = [tuple(pair) for pair in texts]
            outputs = np.asarray(self.engine.score(texts), np.float32).reshape(-1)
        else:
            outputs = np.asarray(self.engine.encode(texts), np.float32)
        if len(outputs) != len(texts):
            raise ValueError(f"{len(texts)} texts gave {len(outputs)} rows")
        return outputs


def main() -> int:
    """Answer until standard input ends."""
    answers = hand_over()
    server: Server | None = None
    for line in sys.stdin:
        try:
            server = server or Server(sys.argv[1])  # here, so that an import that fails is an answer too
            answer = server.answer(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
