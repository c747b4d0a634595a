#include "fp8_operators.h"

#include <algorithm>
#include <cmath>

#include "operators.h"

namespace bgert::cuda {
namespace {

constexpr int kVector = 8;
constexpr std::int64_t kMultiple = 16;  // of columns, for cuBLASLt's FP8
constexpr std::int64_t kMostColumns = 4096, kMostNormColumns = 1024;
constexpr std::int64_t kRowsABlock = 4;
constexpr float kLargest = 448.0f;

int number(std::int64_t value) { return static_cast<int>(value); }

bool is_few(const Call& call, std::int64_t rows) { return rows < call.node.least_tokens; }

// The kernel for rows of so many columns: a lane holds up to so many vectors of eight.
std::string kernel_for(const Call& call, const char* name, std::int64_t columns, std::int64_t most) {
  if (columns < kMultiple || columns % kMultiple != 0 || columns > most) {
    call.fail("rows must have a multiple of 16 columns, at most " + std::to_string(most));
  }
  const std::int64_t needed = (columns / kVector + 31) / 32;
  for (const std::int64_t vectors : {1, 2, 3, 4, 6, 8, 12, 16}) {
    if (vectors >= needed) return std::string(name) + "_v" + std::to_string(vectors);
  }
  call.fail("rows have too many columns");
}

struct Quantized {
  Tensor operand, scales;
};

// The outputs from `index` on.
Quantized outputs(const Call& call, std::int64_t rows, std::int64_t columns, std::size_t index) {
  const std::int64_t count = is_few(call, rows) ? 0 : rows;
  return {call.output(count, columns, index), call.output_vector(count, index + 1)};
}

std::int64_t blocks_for(std::int64_t rows) { return (rows + kRowsABlock - 1) / kRowsABlock; }

void gelu_of(const Call& call, const Tensor& x, const Tensor& y) {
  const long long vectors = x.elements / kVector;
  const std::int64_t blocks = std::min<std::int64_t>((vectors + 255) / 256, 16ll * call.node.device.processors());
  call.launch("gelu_rows", blocks, 1, 256, 0, x.data, y.data, vectors);
}

}  // namespace

void require_fp8(const Device& device) {
  const int capability = device.capability();
  if (capability == 89 || capability == 90) return;
  throw Failure("a graph of the target cuda-fp8 needs compute capability 8.9 or 9.0 (Ada, Hopper), and this GPU has " +
                std::to_string(capability / 10) + "." + std::to_string(capability % 10) +
                ": use precision='fp16', which `bgert export --target cuda` writes");
}

void quantize_fp8(const Call& call) {
  const Tensor x = call.matrix(0);
  const std::int64_t rows = x.rows(), columns = x.columns();
  const std::string kernel = kernel_for(call, "quantize_fp8", columns, kMostColumns);
  const Quantized y = outputs(call, rows, columns, 0);
  if (is_few(call, rows)) return;
  call.launch(kernel, blocks_for(rows), 1, 128, 0, x.data, y.operand.data, y.scales.data, number(rows),
              number(columns));
}

void add_layer_norm_fp8(const Call& call) {
  const Tensor x = call.matrix(0);
  const std::int64_t rows = x.rows(), columns = x.columns();
  const std::string kernel = kernel_for(call, "add_layer_norm_fp8", columns, kMostNormColumns);
  if (is_few(call, rows)) {
    outputs(call, rows, columns, 1);
    add_layer_norm(call);
    return;
  }
  const Tensor residual = call.matrix(1, rows, columns);
  const Tensor gamma = call.vector(2, columns), beta = call.vector(3, columns);
  const Tensor y = call.output(rows, columns);
  const Quantized quantized = outputs(call, rows, columns, 1);
  call.launch(kernel, blocks_for(rows), 1, 128, 0, x.data, residual.data, gamma.data, beta.data, y.data,
              quantized.operand.data, quantized.scales.data, number(rows), number(columns), call.node.epsilon);
}

void gelu_fp8(const Call& call) {
  const Tensor x = call.matrix(0);
  const std::int64_t rows = x.rows(), columns = x.columns();
  const std::string kernel = kernel_for(call, "gelu_fp8", columns, kMostColumns);
  const Tensor y = call.output(is_few(call, rows) ? rows : 0, columns);
  const Quantized quantized = outputs(call, rows, columns, 1);
  if (is_few(call, rows)) return gelu_of(call, x, y);
  call.launch(kernel, blocks_for(rows), 1, 128, 0, x.data, quantized.operand.data, quantized.scales.data, number(rows),
              number(columns));
}

void gelu_fp16(const Call& call) {
  const Tensor x = call.matrix(0);
  if (x.columns() % kVector != 0) call.misfit(0);
  gelu_of(call, x, call.output(x.rows(), x.columns()));
}

void linear_fp8(const Call& call) {
  const Tensor operand = call.matrix(0), half = call.matrix(2), weights = call.matrix(3);
  const std::int64_t inputs = weights.columns(), outputs = weights.rows();
  if (inputs < 1 || outputs < 1 || inputs % kMultiple != 0 || outputs % kMultiple != 0) {
    call.fail("matrices must be multiples of 16");
  }
  if (operand.columns() != inputs) call.misfit(0);
  const Tensor scales = call.vector(1, operand.rows()), weight_scales = call.vector(4, outputs);
  const Tensor half_weights = call.matrix(5, outputs, inputs), bias = call.vector(6, outputs);
  if (operand.rows() == 0) {
    if (half.columns() != inputs) call.misfit(2);
    const Tensor y = call.output(half.rows(), outputs);
    return multiply(call, {half.rows(), inputs, outputs, kBias}, {half.data, half_weights.data, bias.data, y.data});
  }
  const std::int64_t rows = operand.rows();
  const Tensor y = call.output(rows, outputs);
  if (call.node.device.capability() == 90) {
    return multiply(call, {rows, inputs, outputs, kBias, kFp8Scaled},
                    {operand.data, weights.data, bias.data, y.data, scales.data, weight_scales.data});
  }
  // Sums of products of numbers up to 448, made small enough for float16 by a power of two, which rounds nothing.
  const float largest = kLargest * kLargest * static_cast<float>(inputs);
  const float unit = std::exp2(std::ceil(std::log2(largest / 65504.0f)));
  multiply(call, {rows, inputs, outputs, kNone, kFp8Plain, 1.0f / unit}, {operand.data, weights.data, nullptr, y.data});
  const std::int64_t vectors = rows * (outputs / kVector);
  const std::int64_t blocks = std::min<std::int64_t>((vectors + 255) / 256, 16ll * call.node.device.processors());
  call.launch("scale_product", blocks, 1, 256, 0, y.data, scales.data, weight_scales.data, bias.data, number(rows),
              number(outputs), unit);
}

}  // namespace bgert::cuda
