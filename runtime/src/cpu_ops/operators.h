// What each operator computes. Shapes: T tokens, B texts, H and N columns.
#pragma once

#include "call.h"

namespace bgert::ort {

// query [T, H] or, where one token a text asks, [B, H]; key and value [T, H]; cu_seqlens int32 [B + 1] -> like query.
// The second and third give it as bfloat16, and as quantised rows [.., H + 8] (bytes, then scale and zero). A fifth input
// is what scores get by distance, [heads, 2 L - 1] for texts of up to L tokens: column L - 1 + j - i for query i, key j.
// With a window a token sees as many others on either side of it, and every token asks.
Status* packed_attention(const Call& call);
Status* packed_attention_bf16(const Call& call);
Status* packed_attention_int8(const Call& call);

// x and residual [T, H], gamma and beta [H] -> LayerNormalization(x + residual), [T, H]; the second and third give it
// once more, as above. What is quantised is multiplied by factors [H] first.
Status* add_layer_norm(const Call& call);
Status* add_layer_norm_bf16(const Call& call);
Status* add_layer_norm_int8(const Call& call);

// x [T, H], positions int32 [T], turns [L, D] -> x with every head of D numbers turned by its token's position: numbers
// i and i + D / 2 by the angle whose cosine is turns[position, i] and whose sine is turns[position, i + D / 2].
Status* rotary(const Call& call);

// x [T, H] -> x / 2 * (1 + erf(x / sqrt 2)).
Status* gelu(const Call& call);

// rows [T, H], cu_seqlens [B + 1] -> mean of each text's rows, [B, H]; the second gives the largest of each column.
Status* mean_pool(const Call& call);
Status* max_pool(const Call& call);

// x [T, K], weights [N / 32, K, 32] as one row, bias [N] -> x * weights + bias, [T, N], and the GELU of it.
Status* linear_fp32(const Call& call);
Status* linear_gelu_fp32(const Call& call);

// x bfloat16 [T, K], weights bfloat16 [N / 32, K / 2, 32, 2] as one row, bias [N] -> [T, N]; the second gives
// the GELU of it as bfloat16.
Status* linear_bf16(const Call& call);
Status* linear_gelu_bf16(const Call& call);

// x quantised rows [T, K + 8], weights int8 [N / 32, K / 4, 32, 4] as one row, scales [N], sums int32 [N] (of each
// column's weights), bias [N] -> [T, N]; the second gives the GELU of it as quantised rows.
Status* linear_int8(const Call& call);
Status* linear_gelu_int8(const Call& call);

// As the three above, with 2 N columns of weights and bias: activation(x * first N) * (x * last N), [T, N], where the activation
// is GELU or SiLU; as floats, as bfloat16 and as quantised rows.
Status* linear_geglu_fp32(const Call& call);
Status* linear_swiglu_fp32(const Call& call);
Status* linear_geglu_bf16(const Call& call);
Status* linear_swiglu_bf16(const Call& call);
Status* linear_geglu_int8(const Call& call);
Status* linear_swiglu_int8(const Call& call);

}  // namespace bgert::ort
