"""Spark: functions for `DataFrame.mapInArrow` that embed or score, with the model opened once a Python worker."""

from __future__ import annotations

import copy
import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.errors import EngineNotInstalledError, InvalidOptionError, install_extra
from bgert.integrations import arrow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["MapInArrow", "embed", "score"]

_SPARK_TYPES = {"float32": "FloatType", "int8": "ByteType", "binary": "ByteType"}


def embed(folder: str | Path, **options: Any) -> MapInArrow:
    """A function that adds a column of vectors: `frame.mapInArrow(stage, stage.schema(frame))`.

    Args:
        folder: as in `arrow.Embed`.
        **options: of `arrow.Embed`. Vectors are `array<float>`, with dtype `int8` `array<tinyint>`, with `ubinary`
            `binary`; Spark has no 16-bit floats.

    Raises:
        InvalidOptionError: `dtype` is float16, or as in `arrow.Embed`.
    """
    return MapInArrow(_Embed(folder, **options))


def score(folder: str | Path, **options: Any) -> MapInArrow:
    """A function that adds a column of a reranker's scores; arguments as those of `arrow.Score`, of one label."""
    return MapInArrow(_Score(folder, **options))


class MapInArrow:
    """What `mapInArrow` calls with the batches of a partition.

    Threads are `spark.task.cpus`, the device is the task's GPU if Spark gave it one, else the CPU, unless `threads=`
    and `device=` said otherwise.
    """

    def __init__(self, stage: _Embed | _Score) -> None:
        self.stage = stage

    def schema(self, frame: Any) -> Any:
        """The `StructType` of what comes out for a DataFrame, or for its schema."""
        schema, types = getattr(frame, "schema", frame), _pyspark("sql.types")
        arrow.check_names(schema.names, self.stage.needed, self.stage.added)
        kinds = [self.stage.spark_type(types), *([types.BooleanType()] if self.stage.truncated else [])]
        added = [types.StructField(name, kind) for name, kind in zip(self.stage.added, kinds, strict=True)]
        return types.StructType([*schema.fields, *added])

    def __call__(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Record batches with the new columns."""
        stage = copy.copy(self.stage)
        stage.options = {**_assigned(), **stage.options}
        for batch in batches:
            yield stage(batch)


class _Embed(arrow.Embed):
    def __init__(self, folder: str | Path, **options: Any) -> None:
        super().__init__(folder, **options)
        if self.dtype == "float16":
            raise InvalidOptionError("Spark has no 16-bit floats: use float32, int8 or ubinary")

    def spark_type(self, types: Any) -> Any:
        if self.dtype == "ubinary":
            return types.BinaryType()
        return types.ArrayType(getattr(types, _SPARK_TYPES[self.dtype])(), containsNull=False)

    def array(self, rows: NDArray[Any]) -> Any:
        pyarrow = arrow.arrow()
        if self.dtype == "ubinary":
            return pyarrow.array([row.tobytes() for row in rows], pyarrow.binary())
        return _lists(rows)


class _Score(arrow.Score):
    def spark_type(self, types: Any) -> Any:
        return types.FloatType()

    def array(self, scores: NDArray[Any]) -> Any:
        if scores.ndim != 1:
            raise InvalidOptionError(
                f"this model gives {scores.shape[1]} scores a pair: here it takes a model that gives one"
            )
        return super().array(scores)


def _lists(rows: NDArray[Any]) -> Any:
    """Rows [n, dim] as lists of no fixed size, for Spark knows no others."""
    pyarrow = arrow.arrow()
    ends = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pyarrow.ListArray.from_arrays(pyarrow.array(ends), pyarrow.array(rows.ravel()))


def _assigned() -> dict[str, Any]:
    """Model options by what Spark gave this task; none outside of one."""
    context = _pyspark("taskcontext").TaskContext.get()
    if context is None:
        return {}
    gpu = context.resources().get("gpu")
    return {"threads": context.cpus(), "device": f"cuda:{gpu.addresses[0]}" if gpu else "cpu"}


def _pyspark(module: str) -> Any:
    try:
        return importlib.import_module(f"pyspark.{module}")
    except ModuleNotFoundError as error:
        raise EngineNotInstalledError(f"this needs {error.name}: {install_extra('spark')}") from None
