"""Counts the instructions of the inner loops of the ARM kernels, and the share of a core's peak that they allow.

    python tools/arm_loops.py                        compiled by Zig's Clang (PyPI: ziglang), as the wheels are
    python tools/arm_loops.py --compiler aarch64-linux-gnu-g++

No ARM processor is needed and nothing is timed: the loops are read out of the compiler's assembly, and the pipes of a
core are those of LLVM's scheduling model (Neoverse V1) and Arm's Software Optimization Guides. Caches, latencies and
what is outside of the loops are left out, so a share is a bound and no measurement; benchmarks/arm.py measures.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETS = {"baseline": "", "neondot": "+dotprod", "neoni8mm": "+dotprod+i8mm", "neonbf16": "+dotprod+i8mm+bf16"}
# Multiply-adds of one instruction on registers of 128 bits. Those that end in 16 bits are added up by sadalp.
MACS = {"fmla": 4, "sdot": 16, "usmmla": 32, "bfmmla": 16, "smull": 8, "smull2": 8, "smlal": 8, "smlal2": 8}
NAMES = {"smull2": "smull", "smlal": "smull", "smlal2": "smull"}  # what a loop is called after


@dataclass(frozen=True)
class Core:
    """What a core starts in a cycle: instructions, vector instructions, loads, and products of each kind."""

    width: int
    vector: int
    loads: int
    products: dict[str, int] = field(default_factory=dict)  # where they are not as many as vector instructions

    def pipes(self, product: str) -> int:
        """Products of one kind a cycle; 0 where the core lacks them."""
        return self.products.get(product, self.vector)


CORES = {
    "Neoverse V1": Core(8, 4, 3, {"smull": 2}),
    "Neoverse V2": Core(8, 4, 3, {"smull": 2}),
    "Cortex-A78AE": Core(6, 2, 3, {"smull": 1, "usmmla": 0, "bfmmla": 0}),
}


@dataclass
class Loop:
    """An innermost loop: how many instructions of each kind."""

    product: str
    products: int = 0
    macs: int = 0
    vector: int = 0
    loads: int = 0
    spills: int = 0  # loads and stores of what the registers do not hold
    widened: int = 0  # shifts that make floats of bfloat16
    all: int = 0

    def share(self, core: Core) -> float | None:
        """Of the core's peak of these products, at most."""
        pipes = core.pipes(self.product)
        if not pipes:
            return None
        busy = [self.products / pipes, (self.products + self.vector) / core.vector, self.loads / core.loads]
        return self.products / pipes / max(*busy, self.all / core.width)


def read_loop(lines: list[str]) -> Loop | None:
    """A loop's body; None where it multiplies no matrices."""
    counts: dict[str, int] = {}
    loop = Loop("")
    for line in lines:
        name, _, operands = line.strip().partition("\t")
        name = name.split(".")[0]
        vector = re.search(r"\b[vqds]\d+\b|\bv\d+\.", operands) is not None
        loop.all += 1
        if name in ("ldr", "ldur", "ldp", "ld1", "ld1r", "ldnp"):
            loop.loads += 2 if name == "ldp" else 1
            loop.vector += name in ("ld1r",) or (name == "ld1" and "[" in operands.partition("}")[2].partition(",")[0])
            loop.spills += "[sp" in operands
        elif name.startswith(("str", "stp", "st1", "stur")):
            loop.spills += "[sp" in operands
        elif name in MACS and vector and (name != "fmla" or "[" in operands):  # others are of polynomials
            counts[name] = counts.get(name, 0) + 1
            loop.macs += MACS[name]
            loop.products += 1
        elif vector:
            loop.vector += 1
            loop.widened += name in ("shl", "shll", "ushll")
    if not counts:
        return None
    most = max(counts, key=lambda name: counts[name])
    loop.product = NAMES.get(most, most)
    return loop


def loops_of(assembly: str) -> list[Loop]:
    """The innermost loops of a file that multiply matrices."""
    lines = [line for line in assembly.splitlines() if line.strip() and not re.match(r"\s*(\.[a-z]|//|#)", line)]
    lines = [re.sub(r"\s*//.*$", "", line) for line in lines]
    at = {line[:-1]: i for i, line in enumerate(lines) if re.match(r"\.L\w+:$", line)}
    spans = []
    for i, line in enumerate(lines):
        target = re.search(r"^\s+(?:b\.\w+|b\w{2}|cbn?z|tbn?z)\s+.*?(\.L\w+)$", line)
        if target and at.get(target[1], i) < i:
            spans.append((at[target[1]], i))
    inner = [
        one for one in spans if not any(other != one and one[0] <= other[0] and other[1] <= one[1] for other in spans)
    ]
    bodies = [[line for line in lines[a : b + 1] if not line.endswith(":")] for a, b in inner]
    return [loop for loop in map(read_loop, bodies) if loop is not None]


def assembly_of(name: str, compiler: list[str]) -> str:
    """What the compiler makes of one set of kernels, with the flags of the wheels."""
    zig = "c++" in compiler[1:2]
    arch = f"generic{SETS[name]}" if zig else f"armv8.2-a{SETS[name]}"
    flags = [
        "-std=c++20",
        "-O3",
        "-g0",
        "-DNDEBUG",
        "-fPIC",
        "-ffp-contract=fast",
        "-DBGERT_ARM64",
        f"-I{ROOT / 'runtime/src'}",
    ]
    flags += [f"-mcpu={arch}" if zig else f"-march={arch}"] if SETS[name] else []
    source = str(ROOT / f"runtime/src/cpu_ops/isa_{name}.cpp")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "kernels.s"
        subprocess.run([*compiler, *flags, "-S", "-o", str(out), source], check=True, stderr=subprocess.DEVNULL)
        return out.read_text()


def best(loops: list[Loop]) -> dict[tuple[str, bool], Loop]:
    """The loop of the largest tile by its product; floats that were widened from bfloat16 apart."""
    found: dict[tuple[str, bool], Loop] = {}
    for loop in loops:
        key = (loop.product, loop.widened > 0)
        if key not in found or (loop.products, -loop.all) > (found[key].products, -found[key].all):
            found[key] = loop
    return found


def main() -> None:
    """Print the table of docs/ARM.md."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--compiler", help="of C++ for aarch64 Linux; default: Zig's")
    options = parser.parse_args()
    if options.compiler:
        compiler = options.compiler.split()
    else:
        spec = importlib.util.find_spec("ziglang")
        if spec is None or spec.origin is None:
            raise SystemExit("pip install ziglang==0.17.1, or name another with --compiler")
        compiler = [str(Path(spec.origin).parent / "zig"), "c++", "-target", "aarch64-linux-gnu.2.28"]
    head = ["kernels", "instruction", "of them", "multiply-adds", "other vector", "loads", "all", "all a multiply-add"]
    head += ["spills", *CORES]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for name in SETS:
        for (product, widened), loop in sorted(best(loops_of(assembly_of(name, compiler))).items()):
            shares = [loop.share(core) for core in CORES.values()]
            cells = [
                name,
                f"{product}{', widened' if widened else ''}",
                loop.products,
                loop.macs,
                loop.vector,
                loop.loads,
            ]
            cells += [loop.all, f"{loop.all / loop.macs:.3f}", loop.spills]
            cells += ["none" if share is None else f"{share:.0%}" for share in shares]
            print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
