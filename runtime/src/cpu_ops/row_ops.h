// Work on single rows, fp32: residual + LayerNorm, GELU, mean over rows.
#pragma once

#include "simd.h"

namespace {

// out = (x + residual - mean) / sqrt(variance + epsilon) * gamma + beta, over `size` floats.
//
// A mean is only as exact as a float of its size, and every number is short of it by the same error: the mean of what
// is left when the mean was taken off. Variance and result are freed of it, so an offset common to a row costs nothing.
inline void add_layer_norm(const float* x, const float* residual, const float* gamma, const float* beta, float epsilon,
                           Size size, float* out) {
  const Size whole = size / kLanes * kLanes;
  const float count = static_cast<float>(size);
  Vec total = {};
  for (Size i = 0; i < whole; i += kLanes) {
    const Vec value = load(x + i) + load(residual + i);
    total += value;
    store(out + i, value);
  }
  float mean = sum(total);
  for (Size i = whole; i < size; ++i) mean += out[i] = x[i] + residual[i];
  mean /= count;
  Vec squares = {}, rest = {};
  for (Size i = 0; i < whole; i += kLanes) {
    const Vec centred = load(out + i) - mean;
    squares += centred * centred;
    rest += centred;
  }
  float variance = sum(squares), error = sum(rest);
  for (Size i = whole; i < size; ++i) {
    const float centred = out[i] - mean;
    variance += centred * centred;
    error += centred;
  }
  error /= count;
  variance = variance / count - error * error;
  variance = variance < 0.0f ? 0.0f : variance;  // by rounding, where all numbers are alike; NaN stays NaN
  // Squares of numbers from about 1e19 on are infinite, and one over that is 0, as if the row were: make it NaN.
  const float scale = 1.0f / __builtin_sqrtf(variance + epsilon) + (variance - variance);
  const float shift = -error * scale;
  for (Size i = 0; i < whole; i += kLanes) {
    store(out + i, ((load(out + i) - mean) * scale + shift) * load(gamma + i) + load(beta + i));
  }
  for (Size i = whole; i < size; ++i) out[i] = ((out[i] - mean) * scale + shift) * gamma[i] + beta[i];
}

// x / 2 * (1 + erf(x / sqrt 2)). erf(z) = z P(z^2) / Q(z^2) for |z| <= 3.92, where it is one to within a rounding; P and
// Q were fitted to a relative error of 1.9e-8 (tools/fit_erf.py).
inline Vec gelu_of(Vec x) {
  constexpr float kLimit = 3.92f;
  const Vec z = x * 0.707106781f;
  const Vec u = z * z;
  Vec p = u * 2.050091273e-06f + 2.848828967e-04f;
  p = p * u + 3.765614038e-03f;
  p = p * u + 5.274871569e-02f;
  p = p * u + 1.904063668e-01f;
  p = p * u + 1.128379146e+00f;
  Vec q = u * 3.809176507e-05f + 1.162535227e-03f;
  q = q * u + 1.496921086e-02f;
  q = q * u + 1.141090756e-01f;
  q = q * u + 5.020759901e-01f;
  q = q * u + 1.0f;
  Vec erf = z * p / q;
  erf = z > kLimit ? broadcast(1.0f) : erf;  // written so that NaN stays NaN
  erf = z < -kLimit ? broadcast(-1.0f) : erf;
  return x * 0.5f * (erf + 1.0f);
}

inline void gelu(const float* x, Size size, float* out) {
  Size i = 0;
  for (; i + kLanes <= size; i += kLanes) store(out + i, gelu_of(load(x + i)));
  for (; i < size; ++i) out[i] = gelu_of(broadcast(x[i]))[0];
}

// Mean of `rows` rows of `size` floats that follow each other. Sums of 16 rows are summed, so that errors stay small.
inline void mean_rows(const float* from, Size rows, Size size, float* out) {
  const float share = 1.0f / static_cast<float>(rows);
  Size column = 0;
  for (; column + kLanes <= size; column += kLanes) {
    Vec total = {};
    for (Size first = 0; first < rows; first += 16) {
      const Size last = rows - first < 16 ? rows : first + 16;
      Vec part = {};
      for (Size row = first; row < last; ++row) part += load(from + row * size + column);
      total += part;
    }
    store(out + column, total * share);
  }
  for (; column < size; ++column) {
    float total = 0.0f;
    for (Size row = 0; row < rows; ++row) total += from[row * size + column];
    out[column] = total * share;
  }
}

}  // namespace
