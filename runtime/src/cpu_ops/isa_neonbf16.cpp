#include "isa.h"

BGERT_KERNEL_TABLE(neonbf16)
