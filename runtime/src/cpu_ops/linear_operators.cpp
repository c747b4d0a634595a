// The operators that multiply by a matrix in panels, in three precisions.
#include <algorithm>

#include "operand_rows.h"
#include "operators.h"

namespace bgert::ort {
namespace {

// The bias of a matrix in panels, whose length is the number of columns.
Status* read_bias(const Call& call, std::size_t index, Tensor& bias) {
  if (Status* status = call.vector(index, bias)) return status;
  return bias.columns % kPanelColumns == 0 ? nullptr : call.misfit(index, "has no whole number of panels");
}

// A matrix in panels; calls task(panel, first row, rows) so that the threads have enough to do.
template <class Task>
Status* for_panels(const Call& call, std::size_t columns, std::size_t rows, const Task& task) {
  constexpr std::size_t kRows = 240;  // a multiple of every kernel's rows of a tile
  const std::size_t chunks = (rows + kRows - 1) / kRows;
  return call.for_each(columns / kPanelColumns * chunks, [&](std::size_t unit) {
    const std::size_t row = unit % chunks * kRows;
    task(unit / chunks, row, std::min(kRows, rows - row));
  });
}

struct LinearFp32 {
  Tensor x, weights, bias;

  Status* read(const Call& call) {
    if (Status* status = call.matrix(0, x)) return status;
    if (Status* status = read_bias(call, 2, bias)) return status;
    return call.panels(1, x.columns, bias.columns, weights);
  }

  void multiply(const Call& call, std::size_t index, std::size_t row, std::size_t rows, bool with_gelu, float* out,
                std::size_t stride) const {
    const std::size_t column = index * kPanelColumns;
    const Fp32Panel panel{weights.floats() + column * x.columns, bias.floats() + column, x.columns};
    call.node.kernels->linear_fp32(rows, x.floats() + row * x.columns, panel, with_gelu, out, stride);
  }

  // Shared by both operators, with GELU and without.
  Status* run(const Call& call, bool with_gelu) {
    Tensor out;
    if (Status* status = read(call)) return status;
    if (Status* status = call.output(0, x.rows, bias.columns, out)) return status;
    return for_panels(call, bias.columns, x.rows, [&](std::size_t index, std::size_t row, std::size_t rows) {
      float* to = out.floats() + row * bias.columns + index * kPanelColumns;
      multiply(call, index, row, rows, with_gelu, to, bias.columns);
    });
  }
};

struct LinearBf16 {
  Tensor x, weights, bias;

  Status* read(const Call& call) {
    if (Status* status = call.matrix(0, x)) return status;
    if (x.columns % 2 != 0) return call.misfit(0, "has an odd number of columns");
    if (Status* status = read_bias(call, 2, bias)) return status;
    return call.panels(1, x.columns, bias.columns, weights);
  }

  Bf16Panel panel(std::size_t index) const {
    return {weights.as<std::uint16_t>() + index * kPanelColumns * x.columns, bias.floats() + index * kPanelColumns,
            x.columns};
  }

  // Without GELU, as a gate has its own.
  void multiply(const Call& call, std::size_t index, std::size_t row, std::size_t rows, bool, float* out,
                std::size_t stride) const {
    call.node.kernels->linear_bf16(rows, x.as<std::uint16_t>() + row * x.columns, panel(index), out, stride);
  }

  template <class Out, class Kernel>
  Status* run(const Call& call, Out* out, Kernel kernel) const {
    return for_panels(call, bias.columns, x.rows, [&](std::size_t index, std::size_t row, std::size_t rows) {
      kernel(rows, x.as<std::uint16_t>() + row * x.columns, panel(index),
             out + row * bias.columns + index * kPanelColumns, bias.columns);
    });
  }
};

struct LinearInt8 {
  Tensor x, weights, scales, sums, bias;

  Status* read(const Call& call) {
    if (Status* status = call.matrix(0, x)) return status;
    if (x.columns <= kRowScaleBytes || depth() % 4 != 0 || depth() > kMostInt8Depth) {
      return call.misfit(0, "has no rows of bytes with a scale and a zero");
    }
    if (Status* status = read_bias(call, 4, bias)) return status;
    if (Status* status = call.panels(1, depth(), bias.columns, weights)) return status;
    if (Status* status = call.vector(2, bias.columns, scales)) return status;
    return call.vector(3, bias.columns, sums);
  }

  std::size_t depth() const { return x.columns - kRowScaleBytes; }

  void multiply(const Call& call, std::size_t index, std::size_t row, std::size_t rows, bool with_gelu, float* out,
                std::size_t stride) const {
    const std::size_t column = index * kPanelColumns;
    const Int8Panel panel{weights.as<std::int8_t>() + column * depth(), scales.floats() + column,
                          sums.as<std::int32_t>() + column, bias.floats() + column, depth()};
    call.node.kernels->linear_int8(rows, x.as<std::uint8_t>() + row * x.columns, panel, with_gelu, out, stride);
  }
};

// Rows of bytes, made of all columns of a row at once. With few rows the threads share out the columns; with many each
// takes rows of its own, few enough to stay in the cache. multiply(panel, row, rows, out, stride) writes one panel.
template <class Multiply>
Status* quantized(const Call& call, std::size_t rows, std::size_t columns, const Tensor& factors, const Tensor& out,
                  const Multiply& multiply) {
  constexpr std::size_t kFew = 48;
  if (rows <= 2 * kFew) {
    float* floats = scratch<Owner::kCall>(rows * columns);
    Status* status = for_panels(call, columns, rows, [&](std::size_t index, std::size_t row, std::size_t here) {
      multiply(index, row, here, floats + row * columns + index * kPanelColumns, columns);
    });
    return status != nullptr ? status : quantize_rows(call, floats, factors.floats(), out);
  }
  return call.for_blocks(rows, kFew, [&](std::size_t row, std::size_t last) {
    float* floats = scratch<Owner::kTask>(kFew * columns);
    for (std::size_t index = 0; index < columns / kPanelColumns; ++index) {
      multiply(index, row, last - row, floats + index * kPanelColumns, columns);
    }
    for (std::size_t i = row; i < last; ++i) {
      call.node.kernels->quantize_row(floats + (i - row) * columns, factors.floats(), columns,
                                      out.as<std::uint8_t>() + i * out.columns);
    }
  });
}

// A matrix of twice the columns, the first half of which is the gate: one panel of activation(gate) * rest at a time.
template <class Linear>
struct Gated {
  Linear linear;
  bool silu;
  std::size_t columns = 0;

  Status* read(const Call& call) {
    if (Status* status = linear.read(call)) return status;
    columns = linear.bias.columns / 2;
    return columns % kPanelColumns == 0 ? nullptr : call.node.api.fail("a gated matrix has an even number of panels");
  }

  // Few rows at a time, so that both halves are in the cache where they meet.
  void multiply(const Call& call, std::size_t index, std::size_t row, std::size_t rows, float* out,
                std::size_t stride) const {
    constexpr std::size_t kRows = 24;
    alignas(64) float gate[kRows * kPanelColumns];
    for (std::size_t done = 0; done < rows; done += kRows) {
      const std::size_t here = std::min(kRows, rows - done);
      float* up = out + done * stride;
      linear.multiply(call, index, row + done, here, false, gate, kPanelColumns);
      linear.multiply(call, index + columns / kPanelColumns, row + done, here, false, up, stride);
      for (std::size_t i = 0; i < here; ++i) {
        call.node.kernels->gate_rows(gate + i * kPanelColumns, kPanelColumns, silu, up + i * stride);
      }
    }
  }
};

Status* gated_fp32(const Call& call, bool silu) {
  Gated<LinearFp32> gated{{}, silu};
  Tensor out;
  if (Status* status = gated.read(call)) return status;
  if (Status* status = call.output(0, gated.linear.x.rows, gated.columns, out)) return status;
  return for_panels(call, out.columns, out.rows, [&](std::size_t index, std::size_t row, std::size_t rows) {
    gated.multiply(call, index, row, rows, out.floats() + row * out.columns + index * kPanelColumns, out.columns);
  });
}

Status* gated_bf16(const Call& call, bool silu) {
  Gated<LinearBf16> gated{{}, silu};
  Tensor out;
  if (Status* status = gated.read(call)) return status;
  if (Status* status = call.output(0, gated.linear.x.rows, gated.columns, out)) return status;
  return for_panels(call, out.columns, out.rows, [&](std::size_t index, std::size_t row, std::size_t rows) {
    float* floats = scratch<Owner::kTask>(rows * kPanelColumns);
    gated.multiply(call, index, row, rows, floats, kPanelColumns);
    std::uint16_t* to = out.as<std::uint16_t>() + row * out.columns + index * kPanelColumns;
    for (std::size_t i = 0; i < rows; ++i) {
      call.node.kernels->round_bf16(floats + i * kPanelColumns, kPanelColumns, to + i * out.columns);
    }
  });
}

Status* gated_int8(const Call& call, bool silu) {
  Gated<LinearInt8> gated{{}, silu};
  Tensor factors, out;
  if (Status* status = gated.read(call)) return status;
  if (Status* status = call.vector(5, gated.columns, factors)) return status;
  const std::size_t rows = gated.linear.x.rows;
  if (Status* status = call.output(0, rows, gated.columns + kRowScaleBytes, out)) return status;
  return quantized(call, rows, gated.columns, factors, out,
                   [&](std::size_t index, std::size_t row, std::size_t here, float* to, std::size_t stride) {
                     gated.multiply(call, index, row, here, to, stride);
                   });
}

}  // namespace

Status* linear_fp32(const Call& call) { return LinearFp32().run(call, false); }
Status* linear_gelu_fp32(const Call& call) { return LinearFp32().run(call, true); }

Status* linear_bf16(const Call& call) {
  LinearBf16 linear;
  Tensor out;
  if (Status* status = linear.read(call)) return status;
  if (Status* status = call.output(0, linear.x.rows, linear.bias.columns, out)) return status;
  return linear.run(call, out.floats(), call.node.kernels->linear_bf16);
}

Status* linear_gelu_bf16(const Call& call) {
  LinearBf16 linear;
  Tensor out;
  if (Status* status = linear.read(call)) return status;
  if (Status* status = call.output(0, linear.x.rows, linear.bias.columns, out)) return status;
  return linear.run(call, out.as<std::uint16_t>(), call.node.kernels->linear_gelu_bf16);
}

Status* linear_int8(const Call& call) {
  LinearInt8 linear;
  Tensor out;
  if (Status* status = linear.read(call)) return status;
  if (Status* status = call.output(0, linear.x.rows, linear.bias.columns, out)) return status;
  return for_panels(call, linear.bias.columns, linear.x.rows, [&](std::size_t index, std::size_t row, std::size_t rows) {
    const std::size_t columns = linear.bias.columns;
    linear.multiply(call, index, row, rows, false, out.floats() + row * columns + index * kPanelColumns, columns);
  });
}

Status* linear_gelu_int8(const Call& call) {
  LinearInt8 linear;
  Tensor factors, out;
  if (Status* status = linear.read(call)) return status;
  if (Status* status = call.vector(5, linear.bias.columns, factors)) return status;
  const std::size_t rows = linear.x.rows, columns = linear.bias.columns;
  if (Status* status = call.output(0, rows, columns + kRowScaleBytes, out)) return status;
  return quantized(call, rows, columns, factors, out,
                   [&](std::size_t index, std::size_t row, std::size_t here, float* to, std::size_t stride) {
                     linear.multiply(call, index, row, here, true, to, stride);
                   });
}

Status* linear_geglu_fp32(const Call& call) { return gated_fp32(call, false); }
Status* linear_swiglu_fp32(const Call& call) { return gated_fp32(call, true); }
Status* linear_geglu_bf16(const Call& call) { return gated_bf16(call, false); }
Status* linear_swiglu_bf16(const Call& call) { return gated_bf16(call, true); }
Status* linear_geglu_int8(const Call& call) { return gated_int8(call, false); }
Status* linear_swiglu_int8(const Call& call) { return gated_int8(call, true); }

}  // namespace bgert::ort
