// The table of one instruction set; included by one source file for each, compiled with its flags.
#pragma once

#include "bf16.h"
#include "fp32.h"
#include "gated.h"
#include "int8.h"
#include "kernels.h"
#include "packed_attention.h"
#include "row_ops.h"

// clang-format off
#define BGERT_KERNEL_TABLE(NAME)                                                \
  namespace bgert {                                                             \
  extern const Kernels kernels_##NAME;                                          \
  const Kernels kernels_##NAME = {                                              \
      #NAME, attention_scratch, attend, add_layer_norm, gelu, mean_rows,        \
      linear_fp32, round_bf16, bf16_panel<float>, bf16_panel<Bf16>,             \
      quantize_row, linear_int8, gate_rows, rotate};                            \
  }
// clang-format on
