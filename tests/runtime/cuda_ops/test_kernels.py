"""Each CUDA kernel beside numpy in float64. Rounding to float16 once is 2.1e-4 of the norm of random numbers."""

import ctypes
import math
from itertools import pairwise

import numpy as np
import pytest

from cuda_arrays import error, halves

ROUNDED = 2.6e-4
EPSILON = 1e-12
TEXTS = [[1], [64], [65, 1, 128, 3], [0, 70, 0, 31], [130, 200, 17, 64, 5]]


def layer_norm(x, gamma, beta):
    x = x.astype(np.float64)
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * gamma + beta


def cuts(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


@pytest.mark.parametrize(
    ("warps", "vectors", "columns"),
    [
        (1, 1, 64),
        (1, 1, 256),
        (1, 2, 384),
        (1, 3, 768),
        (1, 4, 1024),
        (4, 1, 32),
        (4, 1, 768),
        (4, 2, 2048),
        (4, 4, 4096),
    ],
)
def test_layer_norm(emulator, draw, warps, vectors, columns):
    rows = 7
    x, residual = halves((rows, columns), draw), halves((rows, columns), draw, 3.0)
    residual[2] += 100  # a mean far from zero, which one pass of squares would not survive
    gamma, beta, y = halves(columns, draw), halves(columns, draw), halves((rows, columns), draw)
    emulator(
        f"add_layer_norm_w{warps}_v{vectors}", (2, 1), 128, 32, x, residual, gamma, beta, y, rows, columns, EPSILON
    )
    assert error(y, layer_norm(x.astype(np.float64) + residual, gamma, beta)) < ROUNDED


@pytest.mark.parametrize(("warps", "vectors", "columns"), [(1, 3, 768), (4, 1, 384)])
@pytest.mark.parametrize("typed", [False, True])
def test_embeddings(emulator, draw, warps, vectors, columns, typed):
    rows, vocabulary, places = 9, 50, 40
    words, positions = halves((vocabulary, columns), draw), halves((places, columns), draw)
    ids, index = (draw.integers(0, n, rows).astype(np.int32) for n in (vocabulary, places // 2))
    types = draw.integers(0, 2, rows).astype(np.int32) if typed else None
    gamma, beta, y = halves(columns, draw), halves(columns, draw), halves((rows, columns), draw)
    arguments = (words, positions, gamma, beta, y, rows, columns, vocabulary, places, places // 2, EPSILON)
    emulator(f"embedding_layer_norm_w{warps}_v{vectors}", (3, 1), 128, 32, ids, index, types, *arguments)
    place = index + (types * (places // 2) if typed else 0)
    assert error(y, layer_norm(words[ids].astype(np.float64) + positions[place], gamma, beta)) < ROUNDED


def test_ids_outside_the_tables_read_their_ends(emulator, draw):
    words, positions = halves((5, 64), draw), halves((3, 64), draw)
    ids, index = np.array([-1, 5, 2**31 - 1, 1], np.int32), np.array([7, -9, 0, 3], np.int32)
    gamma, beta, y = halves(64, draw), halves(64, draw), halves((4, 64), draw)
    arguments = (words, positions, gamma, beta, y, 4, 64, 5, 3, 0, EPSILON)
    emulator("embedding_layer_norm_w1_v1", (1, 1), 128, 32, ids, index, None, *arguments)
    expected = words[[0, 4, 4, 1]].astype(np.float64) + positions[[2, 0, 0, 2]]
    assert error(y, layer_norm(expected, gamma, beta)) < ROUNDED


def test_gelu_is_that_of_erf(emulator):
    """Every float16 there is, against the exact one: wrong by half a unit of float16 and 3.1e-6 at most."""
    bits = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    x = bits.view(np.float16)[np.isfinite(bits.view(np.float16))]
    x = np.concatenate([x, np.zeros(-len(x) % 8, np.float16)])
    y = halves(len(x), np.random.default_rng(0))
    y[:] = x
    emulator("gelu", (3, 1), 256, 0, y, ctypes.c_longlong(len(x) // 8))
    exact = x.astype(np.float64) * 0.5 * (1 + np.vectorize(math.erf)(x.astype(np.float64) / math.sqrt(2)))
    rounding = np.maximum(2.0**-25, np.abs(exact) * 2.0**-11)
    assert (np.abs(y - exact) <= rounding * 1.01 + 3.1e-6).all()


def tiles_of(emulator, lengths, rows):
    cu_seqlens = cuts(lengths)
    slots = int(cu_seqlens[-1]) // rows + len(lengths)
    tiles = np.full((slots, 2), 77, np.int32)
    emulator("attention_tiles", (1, 1), 1024, 128, cu_seqlens, tiles, len(lengths), slots, rows)
    return cu_seqlens, tiles


@pytest.mark.parametrize("rows", [64, 128])
@pytest.mark.parametrize("count", [3, 33, 1500])
def test_tiles_cover_every_text_once(emulator, draw, rows, count):
    lengths = draw.integers(0, 300, count)
    _, tiles = tiles_of(emulator, lengths, rows)
    expected = [(text, first) for text, n in enumerate(lengths) for first in range(0, n, rows)]
    assert [tuple(tile) for tile in tiles if tile[0] >= 0] == expected
    assert (tiles[len(expected) :] == -1).all()


def attend(q, k, v, size):
    scores = q @ k.T / math.sqrt(size)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def by_heads(rows, size):
    return [rows[:, at : at + size].astype(np.float64) for at in range(0, rows.shape[1], size)]


def attention(emulator, qkv, lengths, size, rows, heads):
    cu_seqlens, tiles = tiles_of(emulator, lengths, rows)
    columns = heads * size
    y = halves((len(qkv), columns), np.random.default_rng(0))
    y[:] = np.nan
    scale = math.log2(math.e) / math.sqrt(size)
    shared = (rows + 4 * 64) * size * 2
    emulator(f"attention_h{size}_q{rows}", (len(tiles), heads), 128, shared, qkv, cu_seqlens, tiles, y, columns, scale)
    return y


@pytest.mark.parametrize("rows", [64, 128])
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("lengths", TEXTS, ids=str)
def test_attention(emulator, draw, lengths, size, rows):
    heads = 2
    qkv = halves((sum(lengths), 3 * heads * size), draw, 2.0)
    y = attention(emulator, qkv, lengths, size, rows, heads)
    for first, last in pairwise(cuts(lengths)):
        if first == last:
            continue
        text = by_heads(qkv[first:last], size)
        expected = np.hstack([attend(text[h], text[heads + h], text[2 * heads + h], size) for h in range(heads)])
        assert error(y[first:last], expected) < 4e-4  # probabilities are rounded too


@pytest.mark.parametrize("size", [32, 64])
def test_a_text_has_the_same_bits_in_any_batch_and_tile(emulator, draw, size):
    lengths = [9, 150, 66]
    qkv = halves((sum(lengths), 6 * size), draw)
    together = {rows: attention(emulator, qkv, lengths, size, rows, 2) for rows in (64, 128)}
    assert together[64].tobytes() == together[128].tobytes()
    for first, last in pairwise(cuts(lengths)):
        alone = attention(emulator, halves_of(qkv[first:last]), [last - first], size, 64, 2)
        assert alone.tobytes() == together[64][first:last].tobytes()


def halves_of(rows):
    copy = halves(rows.shape, np.random.default_rng(0))
    copy[:] = rows
    return copy


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("lengths", TEXTS, ids=str)
def test_attention_of_first_tokens(emulator, draw, lengths, size):
    heads, texts = 2, len(lengths)
    columns = heads * size
    queries, kv = halves((texts, columns), draw, 2.0), halves((sum(lengths), 2 * columns), draw, 2.0)
    y = halves((texts, columns), draw)
    scale = math.log2(math.e) / math.sqrt(size)
    shared = 128 * 8 // size * (size + 2) * 4
    emulator(
        f"first_token_attention_h{size}", (heads, texts), 128, shared, queries, kv, cuts(lengths), y, columns, scale
    )
    for text, (first, last) in enumerate(pairwise(cuts(lengths))):
        if first == last:
            assert (y[text] == 0).all()
            continue
        q, told = by_heads(queries[text : text + 1], size), by_heads(kv[first:last], size)
        expected = np.hstack([attend(q[h], told[h], told[heads + h], size) for h in range(heads)])
        assert error(y[text : text + 1], expected) < ROUNDED * 1.5


def test_first_rows(emulator, draw):
    rows, lengths = halves((8, 64), draw), [3, 5, 0]
    y = halves((3, 64), draw)
    emulator("first_rows", (3, 1), 128, 0, rows, cuts(lengths), y, 8, 64)
    assert np.array_equal(y, rows[[0, 3, 7]])


@pytest.mark.parametrize("normalize", [0, 1])
@pytest.mark.parametrize("mean", [0, 1])
@pytest.mark.parametrize("columns", [64, 384, 768, 4096])
def test_pool(emulator, draw, columns, mean, normalize):
    lengths = [1, 20, 0, 7]
    rows = halves((sum(lengths) if mean else len(lengths), columns), draw)
    y = np.full((len(lengths), columns), np.nan, np.float32)
    groups = 512 // (columns // 8)
    shared = (groups * columns + 16) * 4
    emulator("pool", (len(lengths), 1), 512, shared, rows, cuts(lengths), y, columns, mean, normalize)
    expected = rows.astype(np.float64)
    if mean:
        texts = pairwise(cuts(lengths))
        expected = np.array([expected[a:b].mean(0) if b > a else np.zeros(columns) for a, b in texts])
    if normalize:
        expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    np.testing.assert_allclose(y, expected, rtol=2e-5, atol=2e-7)
