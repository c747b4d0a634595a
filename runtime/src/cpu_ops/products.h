// Rows of floats times a matrix of them, sums in registers.
#pragma once

#include "simd.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

// total[r][n] += a[r][k] * b[k][n] for one k after another, whatever R and N are.
template <int R, int N>
[[gnu::always_inline]] inline void add_product(const float* a, Size a_stride, const float* b, Vec (&total)[R][N]) {
  Vec row[N];
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) row[n] = load(b + n * kLanes);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const Vec factor = broadcast(a[static_cast<Size>(r) * a_stride]);
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) total[r][n] += factor * row[n];
  }
}

#if defined(__aarch64__)

// The same with a[r] in one lane of a register: nothing is spent on spreading it over another.
template <int Lane, int R, int N>
[[gnu::always_inline]] inline void add_lane(const float32x4_t (&a)[R], const float* b, Vec (&total)[R][N]) {
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) {
    const float32x4_t row = vld1q_f32(b + n * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      total[r][n] = reinterpret_cast<Vec>(vfmaq_laneq_f32(reinterpret_cast<float32x4_t>(total[r][n]), row, a[r], Lane));
    }
  }
}

#endif

template <int R, int N>
[[gnu::always_inline]] inline void add_products(const float* a, Size a_stride, const float* b, Size b_stride, Size depth,
                                                Vec (&total)[R][N]) {
  Size k = 0;
#if defined(__aarch64__)
  for (; k + 4 <= depth; k += 4, b += 4 * b_stride) {
    float32x4_t factors[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) factors[r] = vld1q_f32(a + static_cast<Size>(r) * a_stride + k);
    add_lane<0>(factors, b, total);
    add_lane<1>(factors, b + b_stride, total);
    add_lane<2>(factors, b + 2 * b_stride, total);
    add_lane<3>(factors, b + 3 * b_stride, total);
  }
#endif
  for (; k < depth; ++k, b += b_stride) add_product(a + k, a_stride, b, total);
}

}  // namespace
