#include "operators.h"

#include <algorithm>
#include <cmath>

#include "local_attention.h"
#include "operand_rows.h"

namespace bgert::ort {
namespace {

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
  Tensor query, key, value, bias, seen;
  Texts texts;

  // The text's tokens that are keys, from its first.
  std::size_t keys(std::size_t text) const {
    return seen.data == nullptr ? texts.length(text) : static_cast<std::size_t>(seen.as<const std::int32_t>()[text]);
  }

  // Each text has a key, and no more of them than tokens; where a window hides some, all tokens are keys.
  Status* read_seen(const Call& call) {
    if (query.rows != key.rows) return call.misfit(0, "has not a query for each key");
    if (texts.count == 0) return nullptr;
    if (Status* status = call.vector(4, texts.count, seen)) return status;
    for (std::size_t text = 0; text < texts.count; ++text) {
      const std::int32_t count = seen.as<const std::int32_t>()[text];
      const std::size_t length = texts.length(text);
      const bool whole = call.node.window != 0 && length > call.node.window + 1;
      if (count < 1 || static_cast<std::size_t>(count) > length || (whole && static_cast<std::size_t>(count) != length)) {
        return call.misfit(4, "counts keys that a text does not have, or that a window hides");
      }
    }
    return nullptr;
  }

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
    if (call.node.window != 0 && query.rows != key.rows) return call.misfit(0, "has not a query for each key");
    if (call.node.seen) return read_seen(call);
    if (call.node.inputs <= 4) return nullptr;
    if (Status* status = call.matrix(4, bias)) return status;
    if (bias.rows != call.node.num_heads || bias.columns % 2 == 0 || texts.longest > bias.columns / 2 + 1) {
      return call.misfit(4, "has no row a head, or is too short for the longest text");
    }
    return nullptr;
  }

  // In float32, or with products in bfloat16.
  Status* run(const Call& call, float* out, bool in_bf16 = false) const {
    const Kernels& kernels = *call.node.kernels;
    const auto attend = in_bf16 ? kernels.attend_bf16 : kernels.attend;
    const auto scratch_of = in_bf16 ? kernels.attention_bf16_scratch : kernels.attention_scratch;
    const std::size_t heads = call.node.num_heads, hidden = key.columns, size = hidden / heads;
    const bool one_each = query.rows != key.rows;
    const float scale = 1.0f / std::sqrt(static_cast<float>(size));
    // The longest text's memory for every text: asked for once by each thread.
    const LocalAttention local(call.node.window);
    const std::size_t floats = scratch_of(local.longest(texts.longest), size);
    return call.for_each(texts.count * heads, [&](std::size_t unit) {
      const std::size_t text = unit / heads, column = unit % heads * size, length = texts.length(text);
      const std::size_t tokens = texts.first(text) * hidden + column;
      const std::size_t row = one_each ? text * hidden + column : tokens;
      const float* by_distance = bias.data == nullptr ? nullptr : bias.floats() + unit % heads * bias.columns;
      const AttentionHead head{query.floats() + row, key.floats() + tokens,  value.floats() + tokens, out + row, hidden,
                               one_each ? 1 : length, keys(text), size, scale,
                               by_distance == nullptr ? nullptr : by_distance + bias.columns / 2};
      local.attend(head, attend, scratch<Owner::kTask>(floats));
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
  if (Status* status = attention.run(call, floats, true)) return status;
  return round_rows(call, floats, out);
}

Status* packed_attention_int8(const Call& call) {
  Attention attention;
  Tensor out;
  if (Status* status = attention.read(call)) return status;
  const std::size_t rows = attention.query.rows, columns = attention.query.columns;
  if (Status* status = call.output(0, rows, columns + kRowScaleBytes, out)) return status;
  float* floats = scratch<Owner::kCall>(rows * columns);
  if (Status* status = attention.run(call, floats, true)) return status;
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

Status* max_pool(const Call& call) {
  Tensor rows, out;
  Texts texts;
  if (Status* status = call.matrix(0, rows)) return status;
  if (Status* status = read_texts(call, 1, rows.rows, texts)) return status;
  if (Status* status = call.output(0, texts.count, rows.columns, out)) return status;
  const std::size_t size = rows.columns;
  return call.for_each(texts.count, [&](std::size_t text) {
    const float* from = rows.floats() + texts.first(text) * size;
    float* largest = out.floats() + text * size;
    std::copy(from, from + size, largest);
    for (std::size_t row = 1; row < texts.length(text); ++row) {
      const float* at = from + row * size;
      // NaN stays: as what is new, and against all that comes after it.
      for (std::size_t i = 0; i < size; ++i) largest[i] = at[i] > largest[i] || at[i] != at[i] ? at[i] : largest[i];
    }
  });
}

}  // namespace bgert::ort
