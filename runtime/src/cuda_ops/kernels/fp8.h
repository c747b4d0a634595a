// Rows of float16 to E4M3 with a scale each: a warp a row, which stays in registers between its two passes. Only for
// compute capability 8.9 and later; the operators refuse others, whose code has none of these kernels.
#pragma once

#include "device.h"

#if defined(BGERT_EMULATED)
#include "fp8_emulated.h"
#elif __CUDA_ARCH__ >= 890
// Four numbers to the nearest of E4M3, ties to even, what is too large to the largest; the first in the lowest byte.
DEVICE unsigned pack_e4m3(float a, float b, float c, float d) {
  unsigned short low, high;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(low) : "f"(b), "f"(a));
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(high) : "f"(d), "f"(c));
  return low | static_cast<unsigned>(high) << 16;
}
#else
DEVICE unsigned pack_e4m3(float, float, float, float);
#endif

#if defined(BGERT_EMULATED)
DEVICE void store8(void* to, unsigned low, unsigned high) {
  const unsigned words[2] = {low, high};
  if (reinterpret_cast<std::uintptr_t>(to) % 8) std::abort();
  std::memcpy(to, words, 8);
}
#else
DEVICE void store8(void* to, unsigned low, unsigned high) {
  asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(low), "r"(high) : "memory");
}
#endif

constexpr float kLargestE4m3 = 448.0f;
constexpr float kLeastOfRow = 7.88860905e-31f;  // 2^-100: a row of zeros has a scale too

DEVICE float largest_of_warp(float value) {
  UNROLL for (int mask = kWarp / 2; mask > 0; mask /= 2) value = larger(value, shuffle_xor(value, mask));
  return value;
}

DEVICE float magnitude_of(const Pack& pack) {
  float values[kVector], most = 0.0f;
  unpack(pack, values);
  UNROLL for (int j = 0; j < kVector; ++j) most = larger(most, values[j] < 0.0f ? -values[j] : values[j]);
  return most;
}

// A row, of which lane i holds vectors i, i + 32, ..: numbers to `operand`, the scale to `scale`. Divisions round to
// nearest, so that the bits are those of bgert_export.fp8.arithmetic.
template <int VECTORS>
DEVICE void quantize_row(const Pack (&row)[VECTORS], int vectors, unsigned char* operand, float* scale) {
  const int lane = thread() % kWarp;
  float most = 0.0f;
  UNROLL for (int i = 0; i < VECTORS; ++i) {
    if (lane + i * kWarp < vectors) most = larger(most, magnitude_of(row[i]));
  }
  most = larger(largest_of_warp(most), kLeastOfRow);
  if (lane == 0) *scale = most / kLargestE4m3;
  const float factor = kLargestE4m3 / most;
  UNROLL for (int i = 0; i < VECTORS; ++i) {
    const int vector = lane + i * kWarp;
    if (vector < vectors) {
      float values[kVector];
      unpack(row[i], values);
      UNROLL for (int j = 0; j < kVector; ++j) values[j] *= factor;
      store8(operand + vector * kVector, pack_e4m3(values[0], values[1], values[2], values[3]),
             pack_e4m3(values[4], values[5], values[6], values[7]));
    }
  }
}
