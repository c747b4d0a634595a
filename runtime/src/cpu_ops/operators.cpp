#include "operators.h"

#include <cmath>

namespace bgert::ort {
namespace {

constexpr std::size_t kBlock = 16;  // rows of a task that goes row by row

// Text b is the rows from cu_seqlens[b] to cu_seqlens[b + 1].
struct Texts {
  const std::int32_t* bounds = nullptr;
  std::size_t count = 0;
  std::size_t longest = 0;

  std::size_t first(std::size_t text) const { return static_cast<std::size_t>(bounds[text]); }
  std::size_t length(std::size_t text) const { return first(text + 1) - first(text); }
};

Status* read_texts(const Call& call, std::size_t index, std::size_t tokens, Texts& texts) {
  Tensor cu_seqlens;
  if (Status* status = call.vector(index, cu_seqlens)) return status;
  const auto* at = cu_seqlens.as<const std::int32_t>();
  const std::size_t count = cu_seqlens.columns;
  bool good = at[0] == 0 && at[count - 1] >= 0 && static_cast<std::size_t>(at[count - 1]) == tokens;
  for (std::size_t i = 1; good && i < count; ++i) good = at[i] > at[i - 1];
  if (!good) return call.node.api.fail("cu_seqlens does not rise from 0 to the number of tokens");
  texts.bounds = at;
  texts.count = count - 1;
  for (std::size_t i = 0; i < texts.count; ++i) texts.longest = std::max(texts.longest, texts.length(i));
  return nullptr;
}

struct Attention {
  Tensor query, key, value, bias;
  Texts texts;

  Status* read(const Call& call) {
    if (Status* status = call.matrix(0, query)) return status;
    if (Status* status = call.matrix(1, key)) return status;
    if (Status* status = call.matrix(2, value)) return status;
    if (Status* status = read_texts(call, 3, key.rows, texts)) return status;
    const std::size_t hidden = key.columns;
    if (value.rows != key.rows || value.columns != hidden || query.columns != hidden ||
        hidden % call.node.num_heads != 0 || (query.rows != key.rows && query.rows != texts.count)) {
      return call.node.api.fail("query, key and value do not fit together");
    }
    if (call.node.inputs <= 4) return nullptr;
    if (Status* status = call.matrix(4, bias)) return status;
    if (bias.rows != call.node.num_heads || bias.columns % 2 == 0 || texts.longest > bias.columns / 2 + 1) {
      return call.misfit(4, "has no row a head, or is too short for the longest text");
    }
    return nullptr;
  }

  Status* run(const Call& call, float* out) const {
    const Kernels& kernels = *call.node.kernels;
    const std::size_t heads = call.node.num_heads, hidden = key.columns, size = hidden / heads;
    const bool one_each = query.rows != key.rows;
    const float scale = 1.0f / std::sqrt(static_cast<float>(size));
    // The longest text's memory for every text: asked for once by each thread.
    const std::size_t floats = kernels.attention_scratch(texts.longest, size);
    return call.for_each(texts.count * heads, [&](std::size_t unit) {
      const std::size_t text = unit / heads, column = unit % heads * size, length = texts.length(text);
      const std::size_t tokens = texts.first(text) * hidden + column;
      const std::size_t row = one_each ? text * hidden + column : tokens;
      const std::size_t distance_0 = unit % heads * bias.columns + bias.columns / 2;
      const AttentionHead head{query.floats() + row, key.floats() + tokens,  value.floats() + tokens, out + row, hidden,
                               one_each ? 1 : length, length, size, scale,
                               bias.data == nullptr ? nullptr : bias.floats() + distance_0};
      kernels.attend(head, scratch<Owner::kTask>(floats));
    });
  }
};

struct Norm {
  Tensor x, residual, gamma, beta, out;

  Status* read(const Call& call) {
    if (Status* status = call.matrix(0, x)) return status;
    if (Status* status = call.matrix(1, residual)) return status;
    if (residual.rows != x.rows || residual.columns != x.columns) return call.misfit(1, "has not the shape of input 0");
    if (Status* status = call.vector(2, x.columns, gamma)) return status;
    if (Status* status = call.vector(3, x.columns, beta)) return status;
    return call.output(0, x.rows, x.columns, out);
  }

  // then(row, its values) after each row.
  template <class Then>
  Status* run(const Call& call, const Then& then) const {
    const std::size_t size = x.columns;
    return call.for_blocks(x.rows, kBlock, [&](std::size_t row, std::size_t last) {
      for (; row < last; ++row) {
        const std::size_t at = row * size;
        call.node.kernels->add_layer_norm(x.floats() + at, residual.floats() + at, gamma.floats(), beta.floats(),
                                          call.node.epsilon, size, out.floats() + at);
        then(row, out.floats() + at);
      }
    });
  }
};

// Rows of floats to rows of bfloat16 or bytes.
Status* round_rows(const Call& call, const float* rows, const Tensor& out) {
  return call.for_blocks(out.rows, kBlock, [&](std::size_t row, std::size_t last) {
    call.node.kernels->round_bf16(rows + row * out.columns, (last - row) * out.columns,
                                  out.as<std::uint16_t>() + row * out.columns);
  });
}

Status* quantize_rows(const Call& call, const float* rows, const float* factors, const Tensor& out) {
  const std::size_t size = out.columns - kRowScaleBytes;
  return call.for_blocks(out.rows, kBlock, [&](std::size_t row, std::size_t last) {
    for (; row < last; ++row) {
      call.node.kernels->quantize_row(rows + row * size, factors, size, out.as<std::uint8_t>() + row * out.columns);
    }
  });
}

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

Status* packed_attention(const Call& call) {
  Attention attention;
  Tensor out;
  if (Status* status = attention.read(call)) return status;
  if (Status* status = call.output(0, attention.query.rows, attention.query.columns, out)) return status;
  return attention.run(call, out.floats());
}

Status* packed_attention_bf16(const Call& call) {
  Attention attention;
  Tensor out;
  if (Status* status = attention.read(call)) return status;
  if (Status* status = call.output(0, attention.query.rows, attention.query.columns, out)) return status;
  float* floats = scratch<Owner::kCall>(out.rows * out.columns);
  if (Status* status = attention.run(call, floats)) return status;
  return round_rows(call, floats, out);
}

Status* packed_attention_int8(const Call& call) {
  Attention attention;
  Tensor out;
  if (Status* status = attention.read(call)) return status;
  const std::size_t rows = attention.query.rows, columns = attention.query.columns;
  if (Status* status = call.output(0, rows, columns + kRowScaleBytes, out)) return status;
  float* floats = scratch<Owner::kCall>(rows * columns);
  if (Status* status = attention.run(call, floats)) return status;
  return quantize_rows(call, floats, nullptr, out);
}

Status* add_layer_norm(const Call& call) {
  Norm norm;
  if (Status* status = norm.read(call)) return status;
  return norm.run(call, [](std::size_t, const float*) {});
}

Status* add_layer_norm_bf16(const Call& call) {
  Norm norm;
  Tensor out;
  if (Status* status = norm.read(call)) return status;
  if (Status* status = call.output(1, norm.x.rows, norm.x.columns, out)) return status;
  return norm.run(call, [&](std::size_t row, const float* values) {
    call.node.kernels->round_bf16(values, out.columns, out.as<std::uint16_t>() + row * out.columns);
  });
}

Status* add_layer_norm_int8(const Call& call) {
  Norm norm;
  Tensor factors, out;
  if (Status* status = norm.read(call)) return status;
  if (Status* status = call.vector(4, norm.x.columns, factors)) return status;
  if (Status* status = call.output(1, norm.x.rows, norm.x.columns + kRowScaleBytes, out)) return status;
  return norm.run(call, [&](std::size_t row, const float* values) {
    call.node.kernels->quantize_row(values, factors.floats(), norm.x.columns,
                                    out.as<std::uint8_t>() + row * out.columns);
  });
}

Status* gelu(const Call& call) {
  Tensor x, out;
  if (Status* status = call.matrix(0, x)) return status;
  if (Status* status = call.output(0, x.rows, x.columns, out)) return status;
  return call.for_blocks(x.rows * x.columns, 8192, [&](std::size_t first, std::size_t last) {
    call.node.kernels->gelu(x.floats() + first, last - first, out.floats() + first);
  });
}

Status* mean_pool(const Call& call) {
  Tensor rows, out;
  Texts texts;
  if (Status* status = call.matrix(0, rows)) return status;
  if (Status* status = read_texts(call, 1, rows.rows, texts)) return status;
  if (Status* status = call.output(0, texts.count, rows.columns, out)) return status;
  return call.for_each(texts.count, [&](std::size_t text) {
    call.node.kernels->mean_rows(rows.floats() + texts.first(text) * rows.columns, texts.length(text), rows.columns,
                                 out.floats() + text * rows.columns);
  });
}

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
