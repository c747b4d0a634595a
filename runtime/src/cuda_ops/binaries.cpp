// The compiled kernels, as tools/compile_cuda_kernels.py wrote them, inside this library.
#include "driver.h"

#define BGERT_BINARY(LABEL, FILE)                                             \
  __asm__(".pushsection .rodata\n.balign 64\n" #LABEL ":\n.incbin \"" BGERT_CUDA_BINARIES "/" FILE "\"\n" \
          ".byte 0\n.popsection\n");                                          \
  extern "C" __attribute__((visibility("hidden"))) const unsigned char LABEL[]

BGERT_BINARY(bgert_sm_80, "sm_80.cubin");
BGERT_BINARY(bgert_sm_86, "sm_86.cubin");
BGERT_BINARY(bgert_sm_89, "sm_89.cubin");
BGERT_BINARY(bgert_sm_90, "sm_90.cubin");
BGERT_BINARY(bgert_sm_120, "sm_120.cubin");
BGERT_BINARY(bgert_compute_80, "compute_80.ptx");

namespace bgert::cuda {

// Machine code runs on later minor versions of its major one alone; PTX on all that are later.
const void* code_for(int capability, const char*& name) {
  struct Code {
    int capability;
    const char* name;
    const unsigned char* bytes;
  };
  static const Code codes[] = {{120, "sm_120", bgert_sm_120},
                               {90, "sm_90", bgert_sm_90},
                               {89, "sm_89", bgert_sm_89},
                               {86, "sm_86", bgert_sm_86},
                               {80, "sm_80", bgert_sm_80}};
  for (const Code& code : codes) {
    if (code.capability <= capability && code.capability / 10 == capability / 10) {
      name = code.name;
      return code.bytes;
    }
  }
  if (capability < 80) throw Failure("bgert's CUDA operators need a GPU of compute capability 8.0 or later");
  name = "compute_80";
  return bgert_compute_80;
}

}  // namespace bgert::cuda
