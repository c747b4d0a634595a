#include "isa.h"

BGERT_KERNEL_TABLE(neondot)
