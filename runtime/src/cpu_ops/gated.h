// Between the matrices of a gated feed-forward network, and rotary positions: single rows, fp32.
#pragma once

#include "row_ops.h"
#include "simd.h"

namespace {

// x / (1 + e^-x), by e^-|x|, which never overflows. NaN stays NaN.
inline Vec silu_of(Vec x) {
  const Vec power = exp_of_negative(x < 0.0f ? x : -x);
  const Vec one = broadcast(1.0f);
  return x * (x < 0.0f ? power : one) / (power + one);
}

// up = activation(gate) * up: the exact GELU, or SiLU.
inline void gate_rows(const float* gate, Size size, bool silu, float* up) {
  const auto activated = [&](Vec x) { return silu ? silu_of(x) : gelu_of(x); };
  Size i = 0;
  for (; i + kLanes <= size; i += kLanes) store(up + i, activated(load(gate + i)) * load(up + i));
  for (; i < size; ++i) up[i] *= activated(broadcast(gate[i]))[0];
}

// One head of one token: numbers i and i + size / 2 are turned by an angle, whose cosine is turns[i] and whose sine is
// turns[i + size / 2]. `size` is even.
inline void rotate(const float* x, const float* turns, Size size, float* out) {
  const Size half = size / 2;
  const float* sines = turns + half;
  Size i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const Vec a = load(x + i), b = load(x + half + i), cosine = load(turns + i), sine = load(sines + i);
    store(out + i, a * cosine - b * sine);
    store(out + half + i, b * cosine + a * sine);
  }
  for (; i < half; ++i) {
    const float a = x[i], b = x[half + i];
    out[i] = a * turns[i] - b * sines[i];
    out[half + i] = b * turns[i] + a * sines[i];
  }
}

}  // namespace
