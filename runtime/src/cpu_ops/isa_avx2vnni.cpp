#include "isa.h"

BGERT_KERNEL_TABLE(avx2vnni)
