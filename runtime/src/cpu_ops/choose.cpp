#include <cstring>

#ifdef BGERT_X86
#include <cpuid.h>
#endif

#include "kernels.h"

namespace bgert {

extern const Kernels kernels_baseline;
#ifdef BGERT_X86
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx2vnni;
extern const Kernels kernels_avx512;
extern const Kernels kernels_avx512vnni;
extern const Kernels kernels_avx512bf16;
#endif

#ifdef BGERT_X86
// Not a name that every compiler's __builtin_cpu_supports knows.
static bool has_avx_vnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & 1U << 4) != 0;
}
#endif

const Kernels* choose_kernels(const char* wanted) {
  const Kernels* available[6] = {};
  std::size_t count = 0;
#ifdef BGERT_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  if (vnni && __builtin_cpu_supports("avx512bf16")) available[count++] = &kernels_avx512bf16;
  if (vnni) available[count++] = &kernels_avx512vnni;
  if (avx512) available[count++] = &kernels_avx512;
  if (avx2 && has_avx_vnni()) available[count++] = &kernels_avx2vnni;
  if (avx2) available[count++] = &kernels_avx2;
#endif
  available[count++] = &kernels_baseline;
  if (wanted == nullptr || *wanted == '\0') return available[0];
  for (std::size_t i = 0; i < count; ++i) {
    if (std::strcmp(available[i]->name, wanted) == 0) return available[i];
  }
  return nullptr;
}

}  // namespace bgert
