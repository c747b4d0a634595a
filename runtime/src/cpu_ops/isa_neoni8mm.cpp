#include "isa.h"

BGERT_KERNEL_TABLE(neoni8mm)
