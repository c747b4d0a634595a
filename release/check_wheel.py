"""Run where a wheel is installed: does it say what release/truth.py wrote down? `python check_wheel.py FOLDER`.

Needs what the extra `cpu` brings. Prints a line about what was seen; exit status 1 with what was wrong.
"""

from __future__ import annotations

import json
import platform
import re
import sys
import time
from pathlib import Path

import numpy as np

TOLERANCE = 2e-5  # of fp32, as export has it
CPUINFO = Path("/proc/cpuinfo")
_AVX512 = {"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq"}
# Best first, with the instructions that each needs, by the names of /proc/cpuinfo.
_KERNELS = {
    "avx512amx": {*_AVX512, "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"},
    "avx512bf16": {*_AVX512, "avx512_vnni", "avx512_bf16"},
    "avx512vnni": {*_AVX512, "avx512_vnni"},
    "avx512": _AVX512,
    "avx2vnni": {"avx2", "fma", "avx_vnni"},
    "avx2": {"avx2", "fma"},
    "neonbf16": {"asimddp", "i8mm", "bf16"},
    "neoni8mm": {"asimddp", "i8mm"},
    "neondot": {"asimddp"},
}


def best_kernels() -> str | None:
    """The kernels that this processor should get by what the system says of it; None where it says nothing."""
    line = {"x86_64": "flags", "aarch64": "Features"}.get(platform.machine())  # an emulator may show its host's file
    text = CPUINFO.read_text() if CPUINFO.exists() else ""
    flags = re.search(rf"^{line}\s*:(.*)$", text, re.MULTILINE)
    if flags is None:
        return None
    have = set(flags[1].split())
    if "GenuineIntel" in text and "amx_tile" not in have:
        have.discard("avx512_bf16")  # float32 is faster there
    return next((name for name, needs in _KERNELS.items() if needs <= have), "baseline")


def main(folder: Path) -> None:
    """Token ids equal, vectors within the tolerance, errors out of C++ that are bgert's, nothing heavy imported."""
    import bgert

    truth = json.loads((folder / "truth.json").read_text())
    expected = np.load(folder / "vectors.npy")
    started = time.monotonic()
    encoder = bgert.Encoder(folder / "model", device="cpu")
    wrong = [
        f"token ids of {text[:40]!r}"
        for text, ids in zip(truth["tokenize"], truth["ids"], strict=True)
        if list(map(int, encoder.tokenizer.encode(text))) != ids
    ]
    vectors = encoder.encode(truth["encode"])
    error = float(np.abs(vectors - expected).max())
    if not error <= TOLERANCE:
        wrong.append("vectors")
    try:  # thrown by C++
        encoder.encode("a \ud800")
        wrong.append("no error for a lone surrogate")
    except bgert.errors.InvalidTextError:
        pass
    best = best_kernels()
    if best is not None and f" {best} kernels" not in vectors.info.engine:
        wrong.append(f"kernels: this processor has what {best} needs")
    if heavy := {"torch", "transformers", "tokenizers", "onnx"} & set(sys.modules):
        wrong.append(f"imports of {', '.join(sorted(heavy))}")
    print(
        f"{platform.machine()}, Python {sys.version.split()[0]}, {' '.join(platform.libc_ver())}, "
        f"{vectors.info.engine}: {len(truth['ids'])} texts tokenized, {len(expected)} encoded, largest difference of a "
        f"component {error:.1e}, {time.monotonic() - started:.1f} s"
    )
    if wrong:
        raise SystemExit(f"wrong: {'; '.join(wrong[:10])}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
