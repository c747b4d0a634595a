// What attention in bfloat16 multiplies: keys and values in blocks of 16 pairs of rows, and the products with them.
#pragma once

#include "bf16.h"
#include "packed_attention.h"
#include "simd.h"

#if defined(__AMX_BF16__)
#include "amx.h"
#endif

#if defined(__AVX512BF16__)

namespace {

constexpr Size kBlockRows = 16;              // queries at a time
constexpr Size kBlock = 16 * kBlockRows;     // dwords of a block of keys or values: [16 pairs][16 columns] of bfloat16

using Mask = unsigned short;
inline Mask first_of(Size count) { return static_cast<Mask>(count >= 16 ? 0xFFFF : (1U << count) - 1); }

inline Vec load_first(const float* from, Size count) {
  return reinterpret_cast<Vec>(_mm512_maskz_loadu_ps(first_of(count), from));
}

// 32 numbers of a row as 16 pairs of bfloat16, zeros after the first `count`.
inline Vec pairs_of(const float* from, Size count) {
  const Vec low = load_first(from, count), high = count > 16 ? load_first(from + 16, count - 16) : Vec{};
  return reinterpret_cast<Vec>(_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(high), reinterpret_cast<__m512>(low)));
}

// Sizes of what is padded, and where it lies.
struct AttentionShape {
  Size keys, deep, wide;  // rows of keys and values, columns of keys, columns of values
  Size score_stride, weight_stride;

  AttentionShape(Size length, Size size)
      : keys(round_up(length, 32)), deep(round_up(size, 32)), wide(round_up(size, 16)),
        score_stride(keys + 16), weight_stride(keys / 2 + 16) {}  // not a power of two: rows fall on other cache sets

  Size key_dwords() const { return keys * deep / 2; }
  Size value_dwords() const { return keys / 2 * wide; }
  Size query_dwords() const { return kBlockRows * deep / 2; }
  Size floats() const {
    return key_dwords() + value_dwords() + query_dwords() + kBlockRows * (score_stride + weight_stride + wide);
  }
};

inline Size attention_bf16_scratch(Size length, Size size) { return AttentionShape(length, size).floats(); }

// Keys to blocks [keys / 16][deep / 32][16 pairs][16 keys].
inline void pack_keys(Rows from, Size length, Size size, const AttentionShape& shape, float* to) {
  for (Size key = 0; key < shape.keys; key += 16) {
    for (Size column = 0; column < shape.deep; column += 32, to += kBlock) {
      Vec block[kLanes];
#pragma GCC unroll 16
      for (Size i = 0; i < 16; ++i) {
        block[i] = key + i < length ? pairs_of(from.at + (key + i) * from.stride + column, size - column) : Vec{};
      }
      transpose_block(block);
#pragma GCC unroll 16
      for (Size i = 0; i < 16; ++i) store(to + 16 * i, block[i]);
    }
  }
}

// Values to blocks [wide / 16][keys / 32][16 pairs of values][16 columns].
inline void pack_values(Rows from, Size length, Size size, const AttentionShape& shape, float* to) {
  for (Size column = 0; column < shape.wide; column += 16) {
    for (Size row = 0; row < shape.keys; row += 2, to += 16) {
      const float* at = from.at + row * from.stride + column;
      const Vec even = row < length ? load_first(at, size - column) : Vec{};
      const Vec odd = row + 1 < length ? load_first(at + from.stride, size - column) : Vec{};
      Bf16 low[16], high[16];
      store_bf16(low, even);
      store_bf16(high, odd);
      using Halves = Bf16 __attribute__((vector_size(32)));
      Halves pair[2];
      __builtin_memcpy(&pair[0], low, sizeof low);
      __builtin_memcpy(&pair[1], high, sizeof high);
      const auto wide = [](Halves half) { return __builtin_convertvector(half, VecUnsigned); };
      store(to, reinterpret_cast<Vec>(wide(pair[0]) | wide(pair[1]) << 16));
    }
  }
}

#if defined(__AMX_BF16__)

// scores[16][keys] of the products of queries [16][deep] with packed keys.
inline void multiply_keys(Size, const float* queries, const float* keys, const AttentionShape& shape, float* scores) {
  const Size parts = shape.deep / 32, row = 2 * shape.deep, stride = 4 * shape.score_stride;
  publish();
  if (parts <= 2) {
    _tile_loadd(4, queries, row);
    if (parts == 2) _tile_loadd(5, queries + 16, row);
    for (Size key = 0; key < shape.keys; key += 32, keys += 2 * parts * kBlock) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_loadd(6, keys, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, keys + parts * kBlock, 64);
      _tile_dpbf16ps(1, 4, 7);
      if (parts == 2) {
        _tile_loadd(6, keys + kBlock, 64);
        _tile_dpbf16ps(0, 5, 6);
        _tile_loadd(7, keys + 3 * kBlock, 64);
        _tile_dpbf16ps(1, 5, 7);
      }
      _tile_stored(0, scores + key, stride);
      _tile_stored(1, scores + key + 16, stride);
    }
    return;
  }
  for (Size key = 0; key < shape.keys; key += 16) {
    _tile_zero(0);
    for (Size part = 0; part < parts; ++part, keys += kBlock) {
      _tile_loadd(4, queries + 16 * part, row);
      _tile_loadd(6, keys, 64);
      _tile_dpbf16ps(0, 4, 6);
    }
    _tile_stored(0, scores + key, stride);
  }
}

// out[16][wide] of the products of weights [16][keys] with packed values. Four sums at once, since each is ready late.
inline void multiply_values(Size, const float* weights, const float* values, const AttentionShape& shape, float* out) {
  const Size column = shape.keys / 32 * kBlock, stride = 4 * shape.weight_stride;
  alignas(64) float second[2][kBlock];
  publish();
  Size at = 0;
  for (; at + 32 <= shape.wide; at += 32, values += 2 * column) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    const float* left = weights;
    const float* right = values;
    Size key = 0;
    for (; key + 64 <= shape.keys; key += 64, left += 32, right += 2 * kBlock) {
      _tile_loadd(4, left, stride);
      _tile_loadd(6, right, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, right + column, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, left + 16, stride);
      _tile_loadd(6, right + kBlock, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_loadd(7, right + column + kBlock, 64);
      _tile_dpbf16ps(3, 5, 7);
    }
    if (key < shape.keys) {
      _tile_loadd(4, left, stride);
      _tile_loadd(6, right, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, right + column, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, out + at, 4 * shape.wide);
    _tile_stored(1, out + at + 16, 4 * shape.wide);
    _tile_stored(2, second[0], 64);
    _tile_stored(3, second[1], 64);
    for (Size r = 0; r < kBlockRows; ++r) {
      for (Size n = 0; n < 2; ++n) {
        float* to = out + r * shape.wide + at + 16 * n;
        store(to, load(to) + load(second[n] + 16 * r));
      }
    }
  }
  if (at < shape.wide) {
    _tile_zero(0);
    for (Size key = 0; key < shape.keys; key += 32) {
      _tile_loadd(4, weights + key / 2, stride);
      _tile_loadd(6, values + key / 32 * kBlock, 64);
      _tile_dpbf16ps(0, 4, 6);
    }
    _tile_stored(0, out + at, 4 * shape.wide);
  }
}

#else

// out[R][16 N] = a[R][pairs] * b[pairs][16] of N columns of blocks, `b_stride` apart. a's rows are `a_stride` dwords apart.
template <int R, int N>
inline void bf16_products(const float* a, Size a_stride, const float* b, Size b_stride, Size pairs, float* out,
                          Size stride) {
  Vec total[R][N] = {};
  for (Size k = 0; k < pairs; ++k, b += 16) {
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      int pair;
      __builtin_memcpy(&pair, a + static_cast<Size>(r) * a_stride + k, sizeof pair);
      const auto left = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        const auto right = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + static_cast<Size>(n) * b_stride));
        total[r][n] = reinterpret_cast<Vec>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(total[r][n]), left, right));
      }
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) store(out + static_cast<Size>(r) * stride + 16 * n, total[r][n]);
  }
}

// Rows of a block that are asked for: eight at a time, or the one of a text that only its first token asks.
template <int N>
inline void bf16_rows_of(Size rows, const float* a, Size a_stride, const float* b, Size b_stride, Size pairs, float* out,
                         Size stride) {
  if (rows == 1) return bf16_products<1, N>(a, a_stride, b, b_stride, pairs, out, stride);
  for (Size row = 0; row < rows; row += 8) {
    bf16_products<8, N>(a + row * a_stride, a_stride, b, b_stride, pairs, out + row * stride, stride);
  }
}

inline void multiply_keys(Size rows, const float* queries, const float* keys, const AttentionShape& shape,
                          float* scores) {
  const Size column = shape.deep / 32 * kBlock;
  for (Size key = 0; key < shape.keys; key += 32, keys += 2 * column) {
    bf16_rows_of<2>(rows, queries, shape.deep / 2, keys, column, shape.deep / 2, scores + key, shape.score_stride);
  }
}

inline void multiply_values(Size rows, const float* weights, const float* values, const AttentionShape& shape,
                            float* out) {
  const Size column = shape.keys / 32 * kBlock, pairs = shape.keys / 2;
  Size at = 0;
  for (; at + 32 <= shape.wide; at += 32) {
    bf16_rows_of<2>(rows, weights, shape.weight_stride, values + at / 16 * column, column, pairs, out + at, shape.wide);
  }
  if (at < shape.wide) {
    bf16_rows_of<1>(rows, weights, shape.weight_stride, values + at / 16 * column, column, pairs, out + at, shape.wide);
  }
}

#endif

}  // namespace

#endif
