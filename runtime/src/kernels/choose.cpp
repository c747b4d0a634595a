#include <cstring>

#include "kernels.h"

namespace bgert {

extern const Kernels kernels_baseline;
#ifdef BGERT_X86
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

const Kernels* choose_kernels(const char* wanted) {
  const Kernels* available[3] = {};
  std::size_t count = 0;
#ifdef BGERT_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    available[count++] = &kernels_avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) available[count++] = &kernels_avx2;
#endif
  available[count++] = &kernels_baseline;
  if (wanted == nullptr || *wanted == '\0') return available[0];
  for (std::size_t i = 0; i < count; ++i) {
    if (std::strcmp(available[i]->name, wanted) == 0) return available[i];
  }
  return nullptr;
}

}  // namespace bgert
