// The table of one instruction set; included by one source file for each, compiled with its flags.
#pragma once

#include "bf16.h"
#include "bf16_attention.h"
#include "fp32.h"
#include "gated.h"
#include "int8.h"
#include "kernels.h"
#include "packed_attention.h"
#include "row_ops.h"

// clang-format off
#define BGERT_KERNEL_TABLE_OF(NAME, LINEAR_BF16, LINEAR_GELU_BF16, LINEAR_INT8)                \
  namespace bgert {                                                                            \
  extern const Kernels kernels_##NAME;                                                         \
  const Kernels kernels_##NAME = {                                                             \
      #NAME, attention_scratch, attend, attention_bf16_scratch, attend_bf16, add_layer_norm,   \
      gelu, mean_rows, linear_fp32, round_bf16, LINEAR_BF16, LINEAR_GELU_BF16,                 \
      quantize_row, LINEAR_INT8, gate_rows, rotate};                                           \
  }
#define BGERT_KERNEL_TABLE(NAME) BGERT_KERNEL_TABLE_OF(NAME, bf16_panel<float>, bf16_panel<Bf16>, linear_int8)
// clang-format on
