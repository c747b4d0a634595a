"""A numpy evaluator of the packed `cuda` graph, read from the written ONNX file: a second implementation of each
operator that the graph uses, by ONNX's and ONNX Runtime's operator documents.

`precision="exact"` computes in float64 with the stored weights. `precision="rounded"` rounds what a GPU rounds: every
float16 value to float16, attention's probabilities to float16, sums in float32.
"""

import math
from itertools import pairwise

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper


def _erf(x):
    return torch.erf(torch.from_numpy(x)).numpy()


class PackedReference:
    def __init__(self, path, precision="exact"):
        self.model = onnx.load(str(path))
        self.rounded = precision == "rounded"
        self.weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}
        self.visited = set()

    def run(self, feeds):
        """The graph's only output, as float64."""
        inputs = {entry.name: entry.type.tensor_type.elem_type for entry in self.model.graph.input}
        assert inputs.keys() == feeds.keys()
        for name, value in feeds.items():
            assert value.dtype == {TensorProto.INT32: np.int32, TensorProto.FLOAT: np.float32}[inputs[name]], name
        values = {"": None, **feeds}
        half = {name for name, weight in self.weights.items() if weight.dtype == np.float16}
        for name, weight in self.weights.items():
            values[name] = weight.astype(np.float64) if weight.dtype.kind == "f" else weight
        with np.errstate(invalid="ignore", over="ignore"):
            for node in self.model.graph.node:
                self.visited.add(node.op_type)
                attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                result = getattr(self, node.op_type)(*(values[name] for name in node.input), **attributes)
                name = node.output[0]
                is_half = any(entry in half for entry in node.input) and node.op_type not in ("Cast", "PoolFp16")
                if is_half:
                    half.add(name)
                values[name] = self._round(result, is_half)
        return values[self.model.graph.output[0].name]

    def _round(self, value, half):
        if not self.rounded or value.dtype.kind != "f":
            return value
        return value.astype(np.float16 if half else np.float32).astype(np.float64)

    def EmbedLayerNormalization(self, ids, segments, words, positions, types, gamma, beta, mask, index, epsilon):  # noqa: N802
        assert segments is None
        assert types is None
        assert mask is None
        assert ids.shape == index.shape
        assert ids.shape[0] == 1
        assert ids.min() >= 0
        assert ids.max() < len(words)
        assert index.min() >= 0
        assert index.max() < len(positions)
        return layer_norm(words[ids] + positions[index], gamma, beta, epsilon)

    def SkipLayerNormalization(self, x, skip, gamma, beta, bias, epsilon):  # noqa: N802
        assert x.shape == skip.shape
        return layer_norm(x + skip + bias, gamma, beta, epsilon)

    def PackedMultiHeadAttention(self, q, k, v, bias, token_offset, cu_seqlens, num_heads):  # noqa: N802
        """With the checks of ONNX Runtime's kernels, the stricter ones of the unfused kernel included."""
        assert bias is None
        assert q.shape == k.shape == v.shape
        tokens, width = q.shape
        texts, longest = token_offset.shape
        assert cu_seqlens.shape == (texts + 1,)
        assert cu_seqlens[0] == 0
        assert cu_seqlens[-1] == tokens <= texts * longest
        lengths = np.diff(cu_seqlens)
        assert lengths.min() >= 0
        assert lengths.max() <= longest
        assert np.array_equal(np.sort(token_offset.ravel()), np.arange(texts * longest))
        slots = [b * longest + s for b, n in enumerate(lengths) for s in range(n)]
        assert np.array_equal(token_offset.ravel()[:tokens], slots)
        size = width // num_heads
        out = np.full(q.shape, np.nan)
        for first, last in pairwise(cu_seqlens):
            if first == last:
                continue
            qs, ks, vs = (x[first:last].reshape(last - first, num_heads, size).swapaxes(0, 1) for x in (q, k, v))
            scores = self._round(qs @ ks.swapaxes(1, 2), False) / math.sqrt(size)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            total = weights.sum(-1, keepdims=True)
            context = (self._round(weights, True) @ vs) / total
            out[first:last] = context.swapaxes(0, 1).reshape(last - first, width)
        return out

    def EmbeddingLayerNormFp16(self, ids, index, words, positions, gamma, beta, epsilon):  # noqa: N802
        return self.EmbedLayerNormalization(ids, None, words, positions, None, gamma, beta, None, index, epsilon)[0]

    def TypedEmbeddingLayerNormFp16(  # noqa: N802
        self, ids, index, words, positions, gamma, beta, types, epsilon, rows_a_type
    ):
        assert index.max() < rows_a_type
        index = index + types * rows_a_type
        return self.EmbeddingLayerNormFp16(ids, index, words, positions, gamma, beta, epsilon)

    def AddLayerNormFp16(self, x, residual, gamma, beta, epsilon):  # noqa: N802
        return self.SkipLayerNormalization(x, residual, gamma, beta, 0, epsilon)

    def LinearFp16(self, x, weights, bias):  # noqa: N802
        return x @ weights.T + bias

    def LinearGeluFp16(self, x, weights, bias):  # noqa: N802
        return self.BiasGelu(self._round(x @ weights.T + bias, True), 0)

    def LinearGeluTanhFp16(self, x, weights, bias):  # noqa: N802
        x = x @ weights.T + bias
        return x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    def AttentionTiles(self, cu_seqlens, ids):  # noqa: N802
        assert cu_seqlens[0] == 0
        assert cu_seqlens[-1] == ids.size
        return np.zeros((1, 2), np.int32)  # how the work is cut is the kernels' business

    def PackedSelfAttentionFp16(self, qkv, cu_seqlens, tiles, num_heads):  # noqa: N802
        out = np.full((len(qkv), qkv.shape[1] // 3), np.nan)
        for first, last in pairwise(cu_seqlens):
            q, k, v = np.split(qkv[first:last], 3, axis=1)
            out[first:last] = self._attend(q, k, v, num_heads)
        return out

    def FirstTokenAttentionFp16(self, queries, kv, cu_seqlens, num_heads):  # noqa: N802
        out = np.zeros(queries.shape)
        for text, (first, last) in enumerate(pairwise(cu_seqlens)):
            k, v = np.split(kv[first:last], 2, axis=1)
            if first < last:
                out[text] = self._attend(queries[text : text + 1], k, v, num_heads)[0]
        return out

    def _attend(self, q, k, v, num_heads):
        size = q.shape[1] // num_heads
        out = np.empty(q.shape)
        for at in range(0, q.shape[1], size):
            scores = q[:, at : at + size] @ k[:, at : at + size].T / math.sqrt(size)
            weights = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
            total = weights.sum(-1, keepdims=True)
            out[:, at : at + size] = self._round(weights, True) @ v[:, at : at + size] / total
        return out

    def FirstRowsFp16(self, rows, cu_seqlens):  # noqa: N802
        return rows[np.minimum(cu_seqlens[:-1], len(rows) - 1)]

    def PoolFp16(self, rows, cu_seqlens, mean, normalize):  # noqa: N802
        if mean:
            texts = list(pairwise(cu_seqlens))
            rows = np.array([rows[a:b].sum(0) / max(b - a, 1) for a, b in texts])
        norm = np.linalg.norm(rows, axis=1, keepdims=True) if normalize else 1
        return rows / np.maximum(norm, 1e-12)

    def Gemm(self, a, b, c=None, transB=0):  # noqa: N802, N803
        assert a.ndim == b.ndim == 2
        return a @ (b.T if transB else b) + (0 if c is None else c)

    def BiasGelu(self, x, bias):  # noqa: N802
        x = x + bias
        return x * 0.5 * (1 + _erf(x / math.sqrt(2)))

    def Gelu(self, x):  # noqa: N802
        return x * 0.5 * (1 + _erf(x / math.sqrt(2)))

    def QuickGelu(self, x, alpha):  # noqa: N802
        return x / (1 + np.exp(-alpha * x))

    def RotaryEmbedding(self, x, positions, cosines, sines):  # noqa: N802
        """With the check of ONNX Runtime's helper that sequences are no longer than the tables."""
        texts, length, width = x.shape
        assert positions.shape == (texts, length)
        assert positions.dtype == np.int64
        assert length <= len(cosines)
        assert positions.min() >= 0
        assert positions.max() < len(cosines)
        half = cosines.shape[1]
        heads = x.reshape(texts, length, -1, 2, half)
        cosine, sine = (table[positions][:, :, None] for table in (cosines, sines))
        first, second = heads[:, :, :, 0], heads[:, :, :, 1]
        turned = [first * cosine - second * sine, second * cosine + first * sine]
        return np.stack(turned, axis=3).reshape(texts, length, width)

    def Gather(self, data, index):  # noqa: N802
        assert index.min() >= 0
        assert index.max() < len(data)
        return data[index]

    def Reshape(self, x, shape):  # noqa: N802
        return x.reshape(shape)

    def Squeeze(self, x, axes):  # noqa: N802
        return np.squeeze(x, tuple(axes))

    def Unsqueeze(self, x, axes):  # noqa: N802
        return np.expand_dims(x, tuple(axes))

    def Cast(self, x, to):  # noqa: N802
        assert to in (TensorProto.FLOAT, TensorProto.INT64)
        return x.astype(np.int64) if to == TensorProto.INT64 else x

    def MatMul(self, a, b):  # noqa: N802
        return a @ b

    def Mul(self, a, b):  # noqa: N802
        return a * b

    def Add(self, a, b):  # noqa: N802
        return a + b

    def Div(self, a, b):  # noqa: N802
        return a / b

    def Max(self, a, b):  # noqa: N802
        return np.maximum(a, b)

    def Sqrt(self, x):  # noqa: N802
        return np.sqrt(x)

    def Tanh(self, x):  # noqa: N802
        return np.tanh(x)

    def Identity(self, x):  # noqa: N802
        return x


def layer_norm(x, gamma, beta, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * gamma + beta


def feeds_of(names, texts, types=None, *, bucket=None, pad_token_id=0):
    """Inputs for lists of token ids, as the backend lays them out."""
    from bgert.backends.cuda.packed_layout import InputPlan, bucket_of
    from bgert.batching import PackedBatch

    lengths = np.array([len(ids) for ids in texts], np.int32)
    cuts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = np.concatenate(texts).astype(np.int32)
    kinds = np.zeros_like(ids) if types is None else np.concatenate(types).astype(np.int32)
    plan = InputPlan(names, pad_token_id=pad_token_id)
    bucket = bucket or bucket_of(lengths)
    block = np.full(plan.nbytes(bucket), 0xA5, np.uint8)
    plan.fill(block, PackedBatch(ids, cuts, kinds), bucket)
    feeds = {}
    for name, dtype, shape, offset in plan.places(bucket):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        feeds[name] = block[offset : offset + size].view(dtype).reshape(shape)
    return feeds
