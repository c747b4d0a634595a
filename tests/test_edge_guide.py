"""The edge guide's memory table, and its commands, against the code."""

import importlib.util
import math
import re
import sys
from pathlib import Path

import pytest

from bgert.backends.tensorrt.recipe import Profile
from bgert.commands.main import build_parser
from bgert_export.architecture import Architecture
from bgert_export.tensorrt.buckets import device_bytes

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "docs" / "EDGE.md").read_text()


def geometries():
    spec = importlib.util.spec_from_file_location("random_checkpoint", ROOT / "benchmarks" / "random_checkpoint.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return {name: module.config_of(name) for name in module.GEOMETRIES}


def row(name, config):
    architecture = Architecture.from_config(config)
    weights = 2 * sum(math.prod(shape) for shape in architecture.weight_shapes().values())

    def size(what, length, tokens):
        return device_bytes(architecture.as_dict(), Profile(length, tokens // length))[what]

    sizes = [weights, size("fused", 128, 1024), size("fused", 128, 8192)]
    sizes += [size("unfused", 128, 8192), size("unfused", 512, 8192)]
    return f"| {name} | " + " | ".join(f"{value / 1e6:.0f}" for value in sizes) + " |"


def test_the_memory_table_is_computed():
    table = GUIDE.split("<!-- memory table -->")[1].split("<!-- end of memory table -->")[0]
    assert table.strip().splitlines()[2:] == [row(name, config) for name, config in geometries().items()]


@pytest.mark.parametrize(
    "command",
    sorted(set(re.findall(r"^bgert (?:export|build) [^#\n]*|`bgert (?:build|verify|bench) DIR[^`]*`", GUIDE, re.M))),
)
def test_the_commands_parse(command):
    build_parser().parse_args(command.strip("`").split()[1:])
