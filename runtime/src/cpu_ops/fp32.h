// Matrices of float32.
#pragma once

#include "kernels.h"
#include "row_ops.h"
#include "simd.h"

namespace {

// One panel of 32 columns: out = x * weights + bias, GELU of it if asked.
template <int R>
inline void fp32_tile(const float* x, const bgert::Fp32Panel& panel, bool with_gelu, float* out, Size stride) {
  for (Size column = 0; column < bgert::kPanelColumns; column += 2 * kLanes) {
    Vec total[R][2];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      total[r][0] = load(panel.bias + column);
      total[r][1] = load(panel.bias + column + kLanes);
    }
    for (Size k = 0; k < panel.depth; ++k) {
      const float* weights = panel.weights + (k * bgert::kPanelColumns + column);
      const Vec first = load(weights), second = load(weights + kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Vec factor = broadcast(x[static_cast<Size>(r) * panel.depth + k]);
        total[r][0] += factor * first;
        total[r][1] += factor * second;
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int n = 0; n < 2; ++n) {
        float* to = out + (static_cast<Size>(r) * stride + column + static_cast<Size>(n * kLanes));
        store(to, with_gelu ? gelu_of(total[r][n]) : total[r][n]);
      }
    }
  }
}

template <int R = kTileRows>
inline void fp32_rows(Size rows, const float* x, const bgert::Fp32Panel& panel, bool with_gelu, float* out,
                      Size stride) {
  if (rows == R) return fp32_tile<R>(x, panel, with_gelu, out, stride);
  if constexpr (R > 1) fp32_rows<R - 1>(rows, x, panel, with_gelu, out, stride);
}

inline void linear_fp32(Size rows, const float* x, const bgert::Fp32Panel& panel, bool with_gelu, float* out,
                        Size stride) {
  if (rows == 0) return;
  const Size blocks = (rows + kTileRows - 1) / kTileRows, step = (rows + blocks - 1) / blocks;
  for (Size row = 0; row < rows; row += step) {
    const Size here = rows - row < step ? rows - row : step;
    fp32_rows(here, x + row * panel.depth, panel, with_gelu, out + row * stride, stride);
  }
}

}  // namespace
