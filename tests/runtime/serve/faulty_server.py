"""`bgert serve` with an engine that fails as a file tells it to: python faulty_server.py FILE FOLDER ... OPTIONS."""

import sys
import time
from pathlib import Path

import numpy as np

from bgert.backends.onnx_cpu import OnnxCpuBackend
from bgert.commands.main import main

control = Path(sys.argv.pop(1))
run = OnnxCpuBackend.run


def faulty(self, batch):
    fault = control.read_text() if control.exists() else ""
    if fault == "raise":
        raise RuntimeError("an injected fault")
    if fault == "raise-on-long" and len(batch.input_ids) > 100:
        raise RuntimeError("an injected fault")
    if fault == "hang":
        time.sleep(1000)
    if fault == "end-thread":
        raise SystemExit(9)
    if fault.startswith("slow"):
        time.sleep(float(fault.split()[1]))
    if fault.startswith("spin"):
        end = time.thread_time() + float(fault.split()[1])
        while time.thread_time() < end:
            pass
    rows = run(self, batch)
    if fault == "nan":
        return np.full_like(rows, np.nan)
    if fault == "other-bits":
        return rows * np.float32(1.0001)
    return rows


OnnxCpuBackend.run = faulty
sys.exit(main(["serve", *sys.argv[1:]]))
