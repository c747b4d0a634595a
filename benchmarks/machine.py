"""Where the figures come from: processor, system, commit."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from bgert.cpu_count import available_cpus

__all__ = ["commit", "describe", "label"]

ROOT = Path(__file__).resolve().parent.parent
INSTRUCTIONS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp", "i8mm")


def describe() -> dict[str, Any]:
    """Processor, its instructions that matter here, cores, memory, system and Python."""
    processor = platform.processor() or platform.machine()
    flags: set[str] = set()
    cpuinfo, meminfo = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                processor = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
    memory = re.search(r"MemTotal:\s+(\d+)", meminfo.read_text()) if meminfo.exists() else None
    return {
        "processor": processor,
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "cores": available_cpus(),
        "memory_gib": round(int(memory[1]) / 2**20) if memory else None,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def label(machine: dict[str, Any]) -> str:
    """For file names: `amd-epyc-2-cores`."""
    return re.sub(r"[^a-z0-9]+", "-", f"{machine['processor']} {machine['cores']} cores".lower()).strip("-")


def commit() -> str:
    """The commit that was measured, with a + where the tree differs from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
