"""The operators of a `cuda-fp8` graph in numpy, each rounding what the device rounds (runtime/src/cuda_ops).

Values of float16 and of E4M3 are kept in float32, where all of them are exact. Sums are float32's.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert_export.fp8.arithmetic import quantize_rows, to_half

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["OPERATORS"]


def _layer_norm(rows: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    centred = rows - rows.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(epsilon))
    return to_half(centred / deviation * gamma + beta)


def _embed(
    ids: Array, index: Array, words: Array, positions: Array, gamma: Array, beta: Array, epsilon: float
) -> Array:
    return _layer_norm(words[ids[0]] + positions[index[0]], gamma, beta, epsilon)


def _embed_typed(*inputs: Array, epsilon: float, rows_a_type: int) -> Array:
    ids, index, words, positions, gamma, beta, types = inputs
    return _embed(ids, types * rows_a_type + index, words, positions, gamma, beta, epsilon)


def _add_layer_norm(rows: Array, residual: Array, gamma: Array, beta: Array, *, epsilon: float) -> Array:
    return _layer_norm(rows + residual, gamma, beta, epsilon)


def _add_layer_norm_fp8(*inputs: Array, epsilon: float, least_tokens: int) -> tuple[Array, Array, Array]:
    rows = _add_layer_norm(*inputs, epsilon=epsilon)
    return rows, *_quantize(rows, least_tokens=least_tokens)


def _quantize(rows: Array, *, least_tokens: int) -> tuple[Array, Array]:
    del least_tokens  # what is below it is nearer to the checkpoint
    return quantize_rows(rows)


def _attended(queries: Array, keys: Array, values: Array, heads: int) -> Array:
    """float16[Q, H] of queries [Q, H] over one text's keys and values [S, H].

    Probabilities are rounded to float16 before they meet the values, and divided by their sum after that.
    """
    size = queries.shape[1] // heads
    q, k, v = (x.reshape(len(x), heads, size).swapaxes(0, 1) for x in (queries, keys, values))
    scores = q @ k.swapaxes(1, 2) * np.float32(1 / math.sqrt(size))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    context: Array = to_half(weights) @ v / weights.sum(axis=-1, keepdims=True)
    return to_half(context.swapaxes(0, 1).reshape(len(queries), -1))


def _self_attention(qkv: Array, cu_seqlens: Array, tiles: None, *, num_heads: int) -> Array:
    del tiles
    out = np.empty((len(qkv), qkv.shape[1] // 3), np.float32)
    for first, last in pairwise(cu_seqlens):
        if first < last:
            query, key, value = np.split(qkv[first:last], 3, axis=1)
            out[first:last] = _attended(query, key, value, num_heads)
    return out


def _first_token_attention(queries: Array, kv: Array, cu_seqlens: Array, *, num_heads: int) -> Array:
    out = np.zeros_like(queries)
    for text, (first, last) in enumerate(pairwise(cu_seqlens)):
        if first < last:
            key, value = np.split(kv[first:last], 2, axis=1)
            out[text] = _attended(queries[text : text + 1], key, value, num_heads)[0]
    return out


def _first_rows(rows: Array, cu_seqlens: Array) -> Array:
    first: Array = rows[np.minimum(cu_seqlens[:-1], len(rows) - 1)]
    return first


def _pool(rows: Array, cu_seqlens: Array, *, mean: int, normalize: int) -> Array:
    if mean:
        means = [rows[first:last].mean(axis=0) for first, last in pairwise(cu_seqlens) if first < last]
        found, rows = np.stack(means), np.zeros((len(cu_seqlens) - 1, rows.shape[1]), np.float32)
        rows[np.diff(cu_seqlens) > 0] = found
    if normalize:
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return rows


def _linear(rows: Array, weights: Array, bias: Array) -> Array:
    return to_half(rows @ weights.T + bias)


def _linear_fp8(numbers: Array, scales: Array, weights: Array, weight_scales: Array, bias: Array) -> Array:
    """Products of E4M3 numbers are exact in float32, their sums rounded; then the scales, the bias, one rounding."""
    product: Array = numbers @ weights.T
    product *= scales[:, None]
    product *= weight_scales
    product += bias
    return to_half(product)


def _gelu(rows: Array) -> Array:
    """Exact GELU of float16 numbers, rounded to float16."""
    result: Array = _GELU[rows.astype(np.float16).view(np.uint16)]
    return result


def _gelu_fp8(rows: Array, *, least_tokens: int) -> tuple[Array, Array, Array]:
    gelu = _gelu(rows)
    return gelu, *_quantize(gelu, least_tokens=least_tokens)


def _all_gelus() -> Array:
    """GELU of every float16 number, by its bits."""
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16).tolist()
    found = [x * 0.5 * math.erfc(-x / math.sqrt(2)) if math.isfinite(x) else max(x, -0.0) for x in numbers]
    return to_half(np.array(found, np.float32))


_GELU = _all_gelus()
# LinearFp8 here is that of many rows, without the inputs that few have.
OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "AddLayerNormFp16": _add_layer_norm,
    "AddLayerNormFp8": _add_layer_norm_fp8,
    "AttentionTiles": lambda *_: None,  # how blocks share the work
    "EmbeddingLayerNormFp16": _embed,
    "Erf": lambda x: np.array([math.erf(value) for value in x.ravel().tolist()], np.float32).reshape(x.shape),
    "FirstRowsFp16": _first_rows,
    "FirstTokenAttentionFp16": _first_token_attention,
    "GeluFp16": _gelu,
    "GeluFp8": _gelu_fp8,
    "Gemm": lambda rows, weights, bias, **_: rows @ weights.T + bias,
    "LinearFp16": _linear,
    "LinearFp8": _linear_fp8,
    "LinearGeluFp16": lambda rows, weights, bias: _gelu(_linear(rows, weights, bias)),
    "Mul": np.multiply,
    "PackedSelfAttentionFp16": _self_attention,
    "PoolFp16": _pool,
    "QuantizeFp8": _quantize,
    "Relu": lambda rows: np.maximum(rows, 0),
    "Tanh": np.tanh,
    "TypedEmbeddingLayerNormFp16": _embed_typed,
}
