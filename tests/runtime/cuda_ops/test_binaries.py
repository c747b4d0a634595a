"""What is committed was compiled from these sources.

That the compiler gives the same is checked where it is: `tools/compile_cuda_kernels.py --check`, in `.ci/run`.
"""

import ctypes
import hashlib
import json
import re
import sys
from pathlib import Path

import pytest

from bgert import _native

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools"))

import compile_cuda_kernels as tool  # noqa: E402

BINARIES = tool.committed()
FACTS = json.loads(BINARIES["built.json"])


def test_the_sources_are_those_that_were_compiled():
    assert tool.hash_of(tool.sources()) == FACTS["sources"], "run python tools/compile_cuda_kernels.py"
    assert FACTS["compiler"] == tool.COMPILER


def test_the_binaries_are_those_that_were_written():
    assert FACTS["binaries"].keys() == tool.ARCHITECTURES.keys()
    for name, digest in FACTS["binaries"].items():
        assert hashlib.sha256(BINARIES[name]).hexdigest() == digest, name


def test_every_binary_has_every_kernel():
    """Names of kernels are in the sources as text or made by a macro; PTX declares them all."""
    ptx = BINARIES["compute_80.ptx"].decode()
    names = set(re.findall(r"\.entry (\w+)\(", ptx))
    assert {"add_layer_norm_w1_v3", "attention_h64_q128", "pool"} <= names
    for name in tool.ARCHITECTURES:
        if name.endswith(".cubin"):
            content = BINARIES[name]
            assert content[:4] == b"\x7fELF"
            assert all(kernel.encode() in content for kernel in names), name


def test_the_emulator_has_every_kernel():
    code = BINARIES["sm_90.cubin"]  # which has E4M3 too
    compiled = {name.decode() for name in re.findall(rb"\0\.text\.(\w+)(?=\0)", code)}
    listed = (ROOT / "tools" / "fake_cuda" / "driver.cpp").read_text()
    assert compiled == set(re.findall(r"ENTRY\((\w+)\)[,}]", listed))


@pytest.mark.skipif(sys.platform != "linux", reason="the CUDA operators are built on Linux alone")
@pytest.mark.parametrize(
    ("capability", "code"),
    [(75, ""), (80, "sm_80"), (86, "sm_86"), (87, "sm_86"), (89, "sm_89"), (90, "sm_90"), (100, "compute_80"),
     (103, "compute_80"), (110, "compute_80"), (120, "sm_120"), (121, "sm_120")],
)  # fmt: skip
def test_a_gpu_takes_code_of_its_own_major_version_or_ptx(capability, code):
    library = ctypes.CDLL(str(Path(_native.__file__).with_name("_cuda_ops.so")))
    library.bgert_cuda_code.restype = ctypes.c_char_p
    assert library.bgert_cuda_code(capability).decode() == code
