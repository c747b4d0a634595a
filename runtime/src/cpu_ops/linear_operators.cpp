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

  // Shared by both operators, with GELU and without.
  Status* run(const Call& call, bool with_gelu) {
    Tensor out;
    if (Status* status = call.matrix(0, x)) return status;
    if (Status* status = read_bias(call, 2, bias)) return status;
    if (Status* status = call.panels(1, x.columns, bias.columns, weights)) return status;
    if (Status* status = call.output(0, x.rows, bias.columns, out)) return status;
    return for_panels(call, bias.columns, x.rows, [&](std::size_t index, std::size_t row, std::size_t rows) {
      const std::size_t column = index * kPanelColumns;
      const Fp32Panel panel{weights.floats() + column * x.columns, bias.floats() + column, x.columns};
      call.node.kernels->linear_fp32(rows, x.floats() + row * x.columns, panel, with_gelu,
                                     out.floats() + row * bias.columns + column, bias.columns);
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

  void multiply(const Call& call, std::size_t index, std::size_t row, std::size_t rows, bool with_gelu,
                float* out) const {
    const std::size_t column = index * kPanelColumns;
    const Int8Panel panel{weights.as<std::int8_t>() + column * depth(), scales.floats() + column,
                          sums.as<std::int32_t>() + column, bias.floats() + column, depth()};
    call.node.kernels->linear_int8(rows, x.as<std::uint8_t>() + row * x.columns, panel, with_gelu, out + column,
                                   bias.columns);
  }
};

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
    linear.multiply(call, index, row, rows, false, out.floats() + row * linear.bias.columns);
  });
}

Status* linear_gelu_int8(const Call& call) {
  LinearInt8 linear;
  Tensor factors, out;
  if (Status* status = linear.read(call)) return status;
  if (Status* status = call.vector(5, linear.bias.columns, factors)) return status;
  const std::size_t rows = linear.x.rows, columns = linear.bias.columns, panels = columns / kPanelColumns;
  if (Status* status = call.output(0, rows, columns + kRowScaleBytes, out)) return status;
  // A row can be quantised when all of its columns are there. With few rows the threads share out the columns; with
  // many each takes rows of its own, few enough to stay in the cache.
  constexpr std::size_t kFew = 48;
  if (rows <= 2 * kFew) {
    float* floats = scratch<Owner::kCall>(rows * columns);
    Status* status = for_panels(call, columns, rows, [&](std::size_t index, std::size_t row, std::size_t here) {
      linear.multiply(call, index, row, here, true, floats + row * columns);
    });
    return status != nullptr ? status : quantize_rows(call, floats, factors.floats(), out);
  }
  return call.for_blocks(rows, kFew, [&](std::size_t row, std::size_t last) {
    float* floats = scratch<Owner::kTask>(kFew * columns);
    for (std::size_t index = 0; index < panels; ++index) linear.multiply(call, index, row, last - row, true, floats);
    for (std::size_t i = row; i < last; ++i) {
      call.node.kernels->quantize_row(floats + (i - row) * columns, factors.floats(), columns,
                                      out.as<std::uint8_t>() + i * out.columns);
    }
  });
}

}  // namespace bgert::ort
