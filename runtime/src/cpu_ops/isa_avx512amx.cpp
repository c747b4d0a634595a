#include "amx.h"
#include "isa.h"

BGERT_KERNEL_TABLE_OF(avx512amx, amx_bf16_panel<float>, amx_bf16_panel<Bf16>, amx_linear_int8)
