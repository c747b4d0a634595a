// bfloat16: the upper half of a float, rounded to nearest, ties to even. And matrices of it.
#pragma once

#include "kernels.h"
#include "row_ops.h"
#include "simd.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include "neon_bf16.h"
#endif

namespace {

using Bf16 = unsigned short;

#if !defined(__aarch64__)  // neon_bf16.h has them
#if defined(__AVX512BF16__)

inline void store_bf16(Bf16* to, Vec value) {
  const __m256bh rounded = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(value));
  __builtin_memcpy(to, &rounded, sizeof rounded);
}

// total + the dot products of pairs: `pair` holds two numbers, `pairs` two for each lane.
inline Vec add_dot(Vec total, int pair, const Bf16* pairs) {
  const __m512i left = _mm512_set1_epi32(pair);
  const __m512i right = _mm512_loadu_si512(pairs);
  return reinterpret_cast<Vec>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(total), reinterpret_cast<__m512bh>(left),
                                                reinterpret_cast<__m512bh>(right)));
}

#else

inline void store_bf16(Bf16* to, Vec value) {
  for (int i = 0; i < kLanes; ++i) {
    unsigned bits;
    const float one = value[i];
    __builtin_memcpy(&bits, &one, sizeof bits);
    const bool is_nan = one != one;
    to[i] = is_nan ? Bf16{0x7FC0} : static_cast<Bf16>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
  }
}

inline Vec add_dot(Vec total, int pair, const Bf16* pairs) {
  constexpr int kUpper = static_cast<int>(0xFFFF0000);
  const VecInt both = *reinterpret_cast<const IntAt2*>(pairs);
  const VecInt zero = {};
  const VecInt left = zero + pair;
  total += reinterpret_cast<Vec>(left << 16) * reinterpret_cast<Vec>(both << 16);
  return total + reinterpret_cast<Vec>(left & kUpper) * reinterpret_cast<Vec>(both & kUpper);
}

#endif

constexpr int kBf16Rows = kTileRows, kBf16Vecs = kTileVecs;

// total += rows of x times the columns that `weights` begins with.
template <int R>
[[gnu::always_inline]] inline void add_bf16_products(const Bf16* x, const Bf16* weights, Size depth,
                                                     Vec (&total)[R][kBf16Vecs]) {
  for (Size k = 0; k < depth; k += 2) {
    const Bf16* pairs = weights + k * bgert::kPanelColumns;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      int pair;
      __builtin_memcpy(&pair, x + static_cast<Size>(r) * depth + k, sizeof pair);
#pragma GCC unroll 2
      for (int n = 0; n < kBf16Vecs; ++n) total[r][n] = add_dot(total[r][n], pair, pairs + 2 * n * kLanes);
    }
  }
}

#endif

// One panel of 32 columns: out = x * weights + bias, as floats or as the GELU of it in bfloat16.
template <int R, class Out>
inline void bf16_tile(const Bf16* x, const bgert::Bf16Panel& panel, Out* out, Size stride) {
  for (Size column = 0; column < bgert::kPanelColumns; column += kBf16Vecs * kLanes) {
    Vec total[R][kBf16Vecs];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int n = 0; n < kBf16Vecs; ++n) total[r][n] = load(panel.bias + column + n * kLanes);
    }
    add_bf16_products(x, panel.weights + 2 * column, panel.depth, total);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int n = 0; n < kBf16Vecs; ++n) {
        Out* to = out + (static_cast<Size>(r) * stride + column + static_cast<Size>(n * kLanes));
        if constexpr (sizeof(Out) == sizeof(Bf16)) {
          store_bf16(to, gelu_of(total[r][n]));
        } else {
          store(to, total[r][n]);
        }
      }
    }
  }
}

template <class Out, int R = kBf16Rows>
inline void bf16_rows(Size rows, const Bf16* x, const bgert::Bf16Panel& panel, Out* out, Size stride) {
  if (rows == R) return bf16_tile<R>(x, panel, out, stride);
  if constexpr (R > 1) bf16_rows<Out, R - 1>(rows, x, panel, out, stride);
}

template <class Out>
inline void bf16_panel(Size rows, const Bf16* x, const bgert::Bf16Panel& panel, Out* out, Size stride) {
  if (rows == 0) return;
  const Size blocks = (rows + kBf16Rows - 1) / kBf16Rows, step = (rows + blocks - 1) / blocks;
  for (Size row = 0; row < rows; row += step) {
    const Size here = rows - row < step ? rows - row : step;
    bf16_rows(here, x + row * panel.depth, panel, out + row * stride, stride);
  }
}

inline void round_bf16(const float* x, Size size, Bf16* out) {
  Size i = 0;
  for (; i + kLanes <= size; i += kLanes) store_bf16(out + i, load(x + i));
  for (; i < size; ++i) {
    Bf16 rounded[kLanes];
    store_bf16(rounded, broadcast(x[i]));
    out[i] = rounded[0];
  }
}

}  // namespace
