// What each operator computes, float16 unless said. T tokens, B texts, H and N columns.
#pragma once

#include "call.h"

namespace bgert::cuda {

// ids, index int32 [1, T], words [V, H], positions [P, H], gamma, beta [H] -> LayerNorm(words[ids] + positions[index]),
// [T, H]. With a seventh input, types int32 [1, T], positions[types * rows_a_type + index].
void embedding_layer_norm(const Call& call);
void typed_embedding_layer_norm(const Call& call);

// x, residual [T, H], gamma, beta [H] -> LayerNorm(x + residual), [T, H].
void add_layer_norm(const Call& call);

// x [T, K], weights [N, K], bias [N] -> x * weights^T + bias, [T, N]; then its GELU, as erf has it to 3e-6; then GELU's
// tanh form, within 4.7e-4 of it, in the product itself.
void linear(const Call& call);
void linear_gelu(const Call& call);
void linear_gelu_tanh(const Call& call);

// cu_seqlens int32 [B + 1], ids [1, T] -> which text and which of its queries a block of attention takes, int32 [S, 2].
void attention_tiles(const Call& call);

// qkv [T, 3 H] (query, key, value, each of all heads), cu_seqlens, tiles -> each text's attention, [T, H].
void packed_self_attention(const Call& call);

// queries [B, H] of each text's first token, kv [T, 2 H], cu_seqlens -> [B, H].
void first_token_attention(const Call& call);

// rows [T, H], cu_seqlens -> the row of each text's first token, [B, H].
void first_rows(const Call& call);

// rows [T, H] with `mean`, else [B, H], cu_seqlens -> float32 [B, H]: means of texts or the rows, normalised or not.
void pool(const Call& call);

// The product of a shape, by the algorithm that was timed for it.
void multiply(const Call& call, const Shape& shape, const Operands& operands);

}  // namespace bgert::cuda
