"""Run the kernels for ARM on emulated processors: beside double precision, and as the graph of a stranger would.

    make check-arm       or, in an environment with release/requirements.txt:  python release/run_kernels.py [SECONDS]

Zig compiles runtime/fuzz/fuzz_kernels.cpp and fuzz_operators.cpp as the wheels are compiled; qemu-user is Debian's. On
each processor the kernels have to be those that its instructions allow, and no others: an instruction that a processor
lacks ends the program.
"""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from debian import EMULATOR, Debian
from wheels import ROOT, run, toolchain

ALL = ("baseline", "neondot", "neoni8mm", "neonbf16")
# Qemu's processors, and the kernels that they have: Raspberry Pi 4, Graviton 2 (Jetson Orin and Raspberry Pi 5 are
# alike), Graviton 3, and all that Arm has defined.
PROCESSORS = {"cortex-a72": ALL[:1], "neoverse-n1": ALL[:2], "neoverse-v1": ALL, "max": ALL}
FUZZERS = ("fuzz_kernels", "fuzz_operators")


def build(work: Path) -> Path:
    """The folder of the fuzzers for aarch64, which need no library."""
    folder = work / "build-kernels-aarch64"
    zig = toolchain(work / "zig-aarch64-musl", "aarch64", "musl")
    tools = Path(sys.executable).parent
    path = {"PATH": f"{tools}:{os.environ['PATH']}", "ZIG_GLOBAL_CACHE_DIR": str(work / "zig-cache")}
    settings = [f"-DCMAKE_TOOLCHAIN_FILE={zig}", "-DBGERT_WARNINGS_AS_ERRORS=ON", "-DCMAKE_EXE_LINKER_FLAGS=-static -s"]
    run("cmake", "-G", "Ninja", "-S", ROOT / "runtime", "-B", folder, *settings, env=path)
    run("cmake", "--build", folder, "--target", *FUZZERS, env=path)
    return folder


def check(emulator: Path, folder: Path, processor: str, seed: int, seconds: float) -> str:
    """What the fuzzers say on one processor; an error where they fail or saw other kernels."""
    said = []
    for fuzzer in FUZZERS:
        command = [str(emulator), "-cpu", processor, str(folder / fuzzer), str(seed), str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        said.append(done.stdout.strip())
    kernels = PROCESSORS[processor]
    if not said[0].endswith(f"by {' '.join(kernels)}; {kernels[-1]} is the best"):
        raise SystemExit(f"{processor} should have {', '.join(kernels)}: {said[0]}")
    return "\n".join(f"{processor}: {line}" for line in said)


def main() -> None:
    """Compile, then run on every processor, as many at a time as there are cores."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
    work = ROOT / "build/release"
    seed = random.SystemRandom().randrange(1 << 32)
    started = time.monotonic()
    folder = build(work)
    print(f"seed {seed}; compiled in {time.monotonic() - started:.0f} s", flush=True)
    emulator = Debian(work / "debian", EMULATOR, platform.machine()).emulator("aarch64")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for said in pool.map(lambda name: check(emulator, folder, name, seed, seconds), PROCESSORS):
            print(said, flush=True)


if __name__ == "__main__":
    main()
