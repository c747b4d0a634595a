"""From nothing to the first vector: what a new process waits for, part by part."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from bgert.errors import EngineError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PARTS", "cold_start", "cold_starts"]

PARTS = ("python_seconds", "import_seconds", "open_seconds", "first_call_seconds")
"""The interpreter's own start; importing bgert's class; opening the model; a first call, of one short text or pair."""
# Time is the system's own since boot, which all its processes share.
CHILD = """
import time
moments = [time.monotonic()]
import json, sys, warnings
warnings.simplefilter("ignore")
kind, folder, options, inputs = json.loads(sys.argv[1])
import bgert
model_class = getattr(bgert, kind)
moments.append(time.monotonic())
model = model_class(folder, **options)
moments.append(time.monotonic())
(model.encode if kind == "Encoder" else model.score)([inputs], show_progress=False)
moments.append(time.monotonic())
print("\\n" + json.dumps(moments))
sys.stdout.flush()
"""


def cold_start(kind: str, folder: Path, options: dict[str, Any], inputs: str | tuple[str, str]) -> dict[str, float]:
    """Seconds of each part, and `total_seconds` from the start of the process to the first vector or score.

    Files come from the disk or from the system's memory of it, as things are.

    Args:
        kind: `Encoder` or `Reranker`.
        folder: the model folder.
        options: of the constructor, as JSON has them.
        inputs: a text or a pair.

    Raises:
        EngineError: the process came to no vector; its last line says why.
    """
    argument = json.dumps([kind, str(folder), options, inputs])
    begun = time.monotonic()
    command = [sys.executable, "-c", CHILD, argument]
    done = subprocess.run(  # noqa: S603 - of our own words
        command, capture_output=True, check=False, stdin=subprocess.DEVNULL, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise EngineError(f"a new process came to no vector: {last}")
    moments = [begun, *json.loads(done.stdout.strip().splitlines()[-1])]
    taken = [after - before for before, after in itertools.pairwise(moments)]
    parts = {name: round(seconds, 4) for name, seconds in zip(PARTS, taken, strict=True)}
    return {**parts, "total_seconds": round(moments[-1] - begun, 4)}


def cold_starts(
    kind: str, folder: Path, options: dict[str, Any], inputs: str | tuple[str, str], count: int
) -> dict[str, Any] | None:
    """The median of each part over so many processes, one after the other, and all their `runs`; None for no process.

    Raises:
        EngineError: a process came to no vector.
    """
    runs = [cold_start(kind, folder, options, inputs) for _ in range(count)]
    if not runs:
        return None
    return {**{name: round(statistics.median(run[name] for run in runs), 4) for name in runs[0]}, "runs": runs}
