// bfloat16 on ARM: matrices of 2 x 2 where there are instructions for them, otherwise widened to floats.
#pragma once

#include <arm_neon.h>

#include "kernels.h"
#include "neon_blocks.h"
#include "simd.h"

namespace {

#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)

inline void store_bf16(unsigned short* to, Vec value) {
  const bfloat16x4_t rounded = vcvt_bf16_f32(reinterpret_cast<float32x4_t>(value));
  __builtin_memcpy(to, &rounded, sizeof rounded);
}

struct Bf16Blocks {
  using Sum = float32x4_t;
  static Sum add(Sum sum, uint8x16_t rows, uint8x16_t columns) {
    return vbfmmlaq_f32(sum, vreinterpretq_bf16_u8(rows), vreinterpretq_bf16_u8(columns));
  }
};

constexpr int kBf16Rows = kBlockRows, kBf16Vecs = kBlockVecs;

template <int R>
inline void add_bf16_products(const unsigned short* x, const unsigned short* weights, Size depth,
                              Vec (&total)[R][kBf16Vecs]) {
  add_blocks<Bf16Blocks>(reinterpret_cast<const unsigned char*>(x), 2 * depth,
                         reinterpret_cast<const unsigned char*>(weights), 2 * depth, total);
}

#else

inline void store_bf16(unsigned short* to, Vec value) {
  const auto bits = reinterpret_cast<uint32x4_t>(value);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint16x4_t rounded = vaddhn_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7FFF)));
  const uint16x4_t number = vmovn_u32(vceqq_f32(reinterpret_cast<float32x4_t>(value), reinterpret_cast<float32x4_t>(value)));
  vst1_u16(to, vbsl_u16(number, rounded, vdup_n_u16(0x7FC0)));
}

constexpr int kBf16Rows = kTileRows - 1, kBf16Vecs = kTileVecs;  // a row less, for the mask and both halves

// Two numbers of each column, which lie in the halves of its 32 bits, times lanes Lane and Lane + 1 of each row.
template <int Lane, int R>
[[gnu::always_inline]] inline void add_pairs(const float32x4_t (&rows)[R], const unsigned short* pairs,
                                             Vec (&total)[R][kBf16Vecs]) {
#pragma GCC unroll 4
  for (int n = 0; n < kBf16Vecs; ++n) {
    const uint32x4_t both = vreinterpretq_u32_u16(vld1q_u16(pairs + 2 * n * kLanes));
    const float32x4_t first = vreinterpretq_f32_u32(vshlq_n_u32(both, 16));
    const float32x4_t second = vreinterpretq_f32_u32(vandq_u32(both, vdupq_n_u32(0xFFFF0000)));
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      auto sum = reinterpret_cast<float32x4_t>(total[r][n]);
      sum = vfmaq_laneq_f32(sum, first, rows[r], Lane);
      total[r][n] = reinterpret_cast<Vec>(vfmaq_laneq_f32(sum, second, rows[r], Lane + 1));
    }
  }
}

inline float32x4_t widened(uint16x4_t halves) { return vreinterpretq_f32_u32(vshll_n_u16(halves, 16)); }

// total += rows of x times the columns that `weights` begins with.
template <int R>
[[gnu::always_inline]] inline void add_bf16_products(const unsigned short* x, const unsigned short* weights, Size depth,
                                                     Vec (&total)[R][kBf16Vecs]) {
  Size k = 0;
  float32x4_t rows[R];
  for (; k + 4 <= depth; k += 4) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) rows[r] = widened(vld1_u16(x + static_cast<Size>(r) * depth + k));
    add_pairs<0>(rows, weights + k * bgert::kPanelColumns, total);
    add_pairs<2>(rows, weights + (k + 2) * bgert::kPanelColumns, total);
  }
  if (k < depth) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      unsigned pair;
      __builtin_memcpy(&pair, x + static_cast<Size>(r) * depth + k, sizeof pair);
      rows[r] = widened(vreinterpret_u16_u32(vdup_n_u32(pair)));
    }
    add_pairs<0>(rows, weights + k * bgert::kPanelColumns, total);
  }
}

#endif

}  // namespace
