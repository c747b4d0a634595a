"""The values that options take, as types by which a type checker finds a misspelt one."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

__all__ = ["DEVICE_NAMES", "Device", "Dtype", "Mode", "Pair", "Precision", "Truncation", "values_of"]

Device = Literal[
    "auto", "cpu", "tensorrt", "tensorrt-rtx", "cuda", "cuda:all",
    "cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:4", "cuda:5", "cuda:6", "cuda:7",
    "cuda:8", "cuda:9", "cuda:10", "cuda:11", "cuda:12", "cuda:13", "cuda:14", "cuda:15",
]  # fmt: skip
"""Where a model runs. A name that is put together at run time needs `cast(bgert.Device, name)`."""
DEVICE_NAMES = "auto, cpu, cuda, cuda:NUMBER, cuda:all, tensorrt or tensorrt-rtx"
"""The same in words, for help and messages."""
Precision = Literal["auto", "fp32", "fp16", "bf16", "int8", "fp8"]
Mode = Literal["throughput", "latency"]
Truncation = Literal["longest_first", "only_first", "only_second", "flag_embedding"]
DtypeName = Literal["float32", "float16", "int8", "binary", "ubinary"]
Dtype = DtypeName | type[np.float32] | type[np.float16] | type[np.int8] | np.dtype[Any]
Pair = tuple[str, str] | list[str]
"""Query and document."""


def values_of(literal: Any) -> tuple[str, ...]:
    """The strings of a Literal, for messages."""
    return get_args(literal)
