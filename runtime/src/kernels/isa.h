// The table of one instruction set; included by one source file for each, compiled with its flags.
#pragma once

#include "kernels.h"
#include "packed_attention.h"
#include "row_ops.h"

#define BGERT_KERNEL_TABLE(NAME)                                                                                 \
  namespace bgert {                                                                                              \
  extern const Kernels kernels_##NAME;                                                                           \
  const Kernels kernels_##NAME = {#NAME, attention_scratch, attend, add_layer_norm, gelu, mean_rows};            \
  }
