// Operators of graphs in E4M3 (bgert_export/graphs/cuda_fp8.py says what each computes). Below a node's `least_tokens`
// rows nothing is quantised: an operand without rows says that fp16 is to be multiplied.
#pragma once

#include "call.h"

namespace bgert::cuda {

// Throws Failure where the device's compute capability is not 8.9 or 9.0.
void require_fp8(const Device& device);

// rows [T, K] -> operand uint8 [T, K], scales float32 [T]; or [0, K] and [0].
void quantize_fp8(const Call& call);

// x, residual [T, H], gamma, beta [H] -> LayerNorm(x + residual) [T, H], operand, scales.
void add_layer_norm_fp8(const Call& call);

// rows [T, K] -> GELU [T, K], operand, scales: either GELU has no rows, or these have none.
void gelu_fp8(const Call& call);

// rows [T, K] -> GELU [T, K].
void gelu_fp16(const Call& call);

// operand uint8 [T, K], scales float32 [T], rows [T, K] or what is not needed, weights uint8 [N, K], their scales float32
// [N], weights [N, K], bias [N] -> [T, N].
void linear_fp8(const Call& call);

}  // namespace bgert::cuda
