// Matrices of float32.
#pragma once

#include "kernels.h"
#include "products.h"
#include "row_ops.h"
#include "simd.h"

namespace {

// One panel of 32 columns: out = x * weights + bias, GELU of it if asked.
template <int R>
inline void fp32_tile(const float* x, const bgert::Fp32Panel& panel, bool with_gelu, float* out, Size stride) {
  for (Size column = 0; column < bgert::kPanelColumns; column += kTileVecs * kLanes) {
    Vec total[R][kTileVecs];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < kTileVecs; ++n) total[r][n] = load(panel.bias + column + n * kLanes);
    }
    add_products(x, panel.depth, panel.weights + column, bgert::kPanelColumns, panel.depth, total);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int n = 0; n < kTileVecs; ++n) {
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
