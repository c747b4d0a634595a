// Products of bytes on ARM: matrices of 2 x 2, dot products of four, or sums of pairs in 16 bits.
#pragma once

#include <arm_neon.h>

#include "kernels.h"
#include "neon_blocks.h"
#include "simd.h"

namespace {

#if defined(__ARM_FEATURE_MATMUL_INT8)

struct Int8Blocks {
  using Sum = int32x4_t;
  static Sum add(Sum sum, uint8x16_t rows, uint8x16_t columns) {
    return vusmmlaq_s32(sum, rows, vreinterpretq_s8_u8(columns));
  }
};

constexpr int kInt8Rows = kBlockRows, kInt8Vecs = kBlockVecs;
constexpr unsigned kByteOffset = 0;  // what rows of bytes are too small by where they are multiplied

template <int R>
inline void add_byte_products(const unsigned char* x, Size stride, const signed char* weights, Size depth,
                              VecInt (&total)[R][kInt8Vecs]) {
  add_blocks<Int8Blocks>(x, stride, reinterpret_cast<const unsigned char*>(weights), depth, total);
}

#else

// Both factors are signed in these instructions: rows are multiplied as bytes less 128.
constexpr unsigned kByteOffset = 128;

inline int8x16_t less_offset(uint8x16_t bytes) {
  return vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(128)));
}

inline int8x16_t quad_at(const unsigned char* x) {
  unsigned quad;
  __builtin_memcpy(&quad, x, sizeof quad);
  return less_offset(vreinterpretq_u8_u32(vdupq_n_u32(quad)));
}

#if defined(__ARM_FEATURE_DOTPROD)

constexpr int kInt8Rows = kTileRows, kInt8Vecs = kTileVecs;

template <int Lane, int R>
[[gnu::always_inline]] inline void add_quads(const int8x16_t (&rows)[R], const signed char* quads,
                                             VecInt (&total)[R][kInt8Vecs]) {
#pragma GCC unroll 4
  for (int n = 0; n < kInt8Vecs; ++n) {
    const int8x16_t columns = vld1q_s8(quads + 4 * n * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      total[r][n] = reinterpret_cast<VecInt>(
          vdotq_laneq_s32(reinterpret_cast<int32x4_t>(total[r][n]), columns, rows[r], Lane));
    }
  }
}

// total += rows of x, `stride` apart, times the columns that `weights` begins with.
template <int R>
[[gnu::always_inline]] inline void add_byte_products(const unsigned char* x, Size stride, const signed char* weights,
                                                     Size depth, VecInt (&total)[R][kInt8Vecs]) {
  constexpr Size kLine = 4 * bgert::kPanelColumns;
  Size k = 0;
  int8x16_t rows[R];
  for (; k + 16 <= depth; k += 16, weights += 4 * kLine) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) rows[r] = less_offset(vld1q_u8(x + static_cast<Size>(r) * stride + k));
    add_quads<0>(rows, weights, total);
    add_quads<1>(rows, weights + kLine, total);
    add_quads<2>(rows, weights + 2 * kLine, total);
    add_quads<3>(rows, weights + 3 * kLine, total);
  }
  for (; k < depth; k += 4, weights += kLine) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) rows[r] = quad_at(x + static_cast<Size>(r) * stride + k);
    add_quads<0>(rows, weights, total);
  }
}

#else

constexpr int kInt8Rows = 2, kInt8Vecs = kTileVecs;  // two registers for each, of two columns

// total += rows of x, `stride` apart, times the columns that `weights` begins with. Two products are added in 16 bits,
// where bytes from -128 and weights from -127 cannot overflow.
template <int R>
[[gnu::always_inline]] inline void add_byte_products(const unsigned char* x, Size stride, const signed char* weights,
                                                     Size depth, VecInt (&total)[R][kInt8Vecs]) {
  constexpr Size kLine = 4 * bgert::kPanelColumns;
  int32x4_t sums[R][kInt8Vecs][2] = {};
  Size k = 0;
  for (; k + 8 <= depth; k += 8, weights += 2 * kLine) {
    int8x16_t first[R], second[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      first[r] = quad_at(x + static_cast<Size>(r) * stride + k);
      second[r] = quad_at(x + static_cast<Size>(r) * stride + k + 4);
    }
#pragma GCC unroll 4
    for (int n = 0; n < kInt8Vecs; ++n) {
      const int8x16_t a = vld1q_s8(weights + 4 * n * kLanes), b = vld1q_s8(weights + kLine + 4 * n * kLanes);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(first[r])), high = vmull_high_s8(a, first[r]);
        low = vmlal_s8(low, vget_low_s8(b), vget_low_s8(second[r]));
        high = vmlal_high_s8(high, b, second[r]);
        sums[r][n][0] = vpadalq_s16(sums[r][n][0], low);
        sums[r][n][1] = vpadalq_s16(sums[r][n][1], high);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < kInt8Vecs; ++n) {
      if (k < depth) {
        const int8x16_t quad = quad_at(x + static_cast<Size>(r) * stride + k), a = vld1q_s8(weights + 4 * n * kLanes);
        sums[r][n][0] = vpadalq_s16(sums[r][n][0], vmull_s8(vget_low_s8(a), vget_low_s8(quad)));
        sums[r][n][1] = vpadalq_s16(sums[r][n][1], vmull_high_s8(a, quad));
      }
      total[r][n] += reinterpret_cast<VecInt>(vpaddq_s32(sums[r][n][0], sums[r][n][1]));
    }
  }
}

#endif
#endif

}  // namespace
