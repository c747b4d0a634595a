"""The graph for other programs than bgert: float32, padded, standard operators, the names that they look for.

Its layers are `tensorrt.Body`'s. Inputs, all int64[B, S], are `input_ids`, `attention_mask` and, where the network
tells types apart, `token_type_ids`: what tokenizers of Hugging Face give. An encoder has two outputs, in this order:
`last_hidden_state` float32[B, S, H], for programs that pool by themselves (fastembed, Vespa), and `sentence_embedding`
float32[B, H], pooled and perhaps normalised as the checkpoint wants it. A reranker has `logits` float32[B, labels].
Weights are inside the file, since Vespa takes one file alone; those of more than 2 GB cannot be and lie beside it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bgert_export.graphs.builder import FLOAT, INT64, GraphBuilder
from bgert_export.graphs.head import activated, projected
from bgert_export.graphs.padded_head import normalized
from bgert_export.graphs.padded_pooling import PaddedPooling
from bgert_export.graphs.tensorrt import Body
from bgert_export.pooling import modes_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert_export.graphs.builder import Written
    from bgert_export.network import Network
    from bgert_export.projections import Projection

__all__ = ["IR_VERSION", "MINIMUM_ENGINE", "OPSET", "write_encoder", "write_reranker"]

OPSET = {"ai.onnx": 18}
IR_VERSION = 8
MINIMUM_ENGINE = "onnxruntime 1.14"  # the first that reads opset 18
STEM = "portable-fp32"


def write_encoder(
    network: Network,
    folder: Path,
    *,
    pooling: str,
    projections: Sequence[Projection] = (),
    normalize: bool,
    version: str,
) -> Written:
    """Write the graph of an embedding model.

    Args:
        network: an encoder.
        folder: existing folder to write into.
        pooling: as `bgert_export.pooling`.
        projections: dense layers behind it.
        normalize: divide by the L2 norm, or by 1e-12 where that is larger.
        version: bgert's version, for the graph's header.
    """
    hidden = network.architecture.hidden_size
    with GraphBuilder(folder, STEM) as builder:
        body = _Body(builder, replace(network, all_types=True))  # of which other programs give zeros
        rows = builder.node("Identity", [body.all_rows()], "last_hidden_state")
        builder.output(rows, FLOAT, ["texts", "length", hidden])
        modes = modes_of(pooling)
        vectors = PaddedPooling(builder, body.mask, counts=True).pooled(lambda: rows, modes)
        vectors = projected(builder, vectors, projections, body.dense)
        vectors = normalized(builder, vectors) if normalize else vectors
        output = builder.node("Identity", [vectors], "sentence_embedding")
        columns = projections[-1].columns if projections else len(modes) * hidden
        return builder.finish_model(
            output, columns, name="encoder", version=version, opset=OPSET, ir_version=IR_VERSION, one_file=True
        )


def write_reranker(network: Network, folder: Path, *, version: str) -> Written:
    """Write the graph of a sequence classifier, whose output is `logits` float32[B, labels]: raw, no sigmoid."""
    arch = network.architecture
    with GraphBuilder(folder, STEM) as builder:
        body = _Body(builder, network)
        dense = arch.head.dense
        hidden = activated(builder, body.head(body.cls_rows(), dense), dense, arch.head.activation)
        output = builder.node("Identity", [body.head(hidden, arch.head.out)], "logits")
        return builder.finish_model(
            output,
            arch.num_labels or 0,
            name="reranker",
            version=version,
            opset=OPSET,
            ir_version=IR_VERSION,
            one_file=True,
        )


class _Body(Body):
    """`tensorrt.Body` in float32, which makes positions by itself."""

    target = "the target portable"

    def __init__(self, builder: GraphBuilder, network: Network) -> None:
        super().__init__(builder, network, "fp32")

    def _input(self, name: str) -> str:
        return self._b.input(name, INT64, ["texts", "length"])

    def _position_ids(self) -> str:
        """Rows of the position table, see `Network.position_table`: int64[1, S], or [B, S] where padding has none."""
        b, arch = self._b, self._net.architecture
        axis = b.constant("positions.axis", np.array(1, np.int64))
        if arch.position_offset > 0:
            pad = b.constant("positions.pad", np.array(arch.pad_token_id, np.int64))
            is_pad = b.node("Equal", [self._ids, pad], "positions.is_pad")
            counts = b.node("Not", [is_pad], "positions.counts")
            counted = b.node("Cast", [counts], "positions.one", attributes={"to": INT64})
            return b.node("Mul", [b.node("CumSum", [counted, axis], "positions.so_far"), counted], "positions")
        zero, one = (b.constant(f"positions.{n}", np.array(n, np.int64)) for n in (0, 1))
        length = b.node("Gather", [b.node("Shape", [self._ids], "positions.shape"), axis], "positions.length")
        count = b.node("Range", [zero, length, one], "positions.row")
        return b.node("Unsqueeze", [count, zero], "positions")

    def _whole(self, value: list[list[int]]) -> NDArray[np.int64]:
        return np.array(value, np.int64)

    def _gelu(self, rows: str, name: str) -> str:
        return activated(self._b, rows, name, "gelu")

    def _wide(self, rows: str, name: str | None = None) -> str:
        del name
        return rows

    def _narrow(self, rows: str) -> str:
        return rows
