// Rows of floats in the forms that matrices read: bfloat16, or bytes with a scale.
#pragma once

#include "call.h"

namespace bgert::ort {

constexpr std::size_t kBlock = 16;  // rows of a task that goes row by row

inline Status* round_rows(const Call& call, const float* rows, const Tensor& out) {
  return call.for_blocks(out.rows, kBlock, [&](std::size_t row, std::size_t last) {
    const std::size_t at = row * out.columns;
    call.node.kernels->round_bf16(rows + at, (last - row) * out.columns, out.as<std::uint16_t>() + at);
  });
}

inline Status* quantize_rows(const Call& call, const float* rows, const float* factors, const Tensor& out) {
  const std::size_t size = out.columns - kRowScaleBytes;
  return call.for_blocks(out.rows, kBlock, [&](std::size_t row, std::size_t last) {
    for (; row < last; ++row) {
      call.node.kernels->quantize_row(rows + row * size, factors, size, out.as<std::uint8_t>() + row * out.columns);
    }
  });
}

}  // namespace bgert::ort
