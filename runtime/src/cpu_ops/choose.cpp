#include <cstring>

#ifdef BGERT_X86
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(BGERT_ARM64) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(BGERT_ARM64) && defined(__APPLE__)
#include <sys/sysctl.h>
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
extern const Kernels kernels_avx512amx;
#elif defined(BGERT_ARM64)
extern const Kernels kernels_neondot;
extern const Kernels kernels_neoni8mm;
extern const Kernels kernels_neonbf16;
#endif

#ifdef BGERT_X86
namespace {

// Asked of the processor itself: __builtin_cpu_supports knows not all names everywhere, and where Zig's runtime library
// stands in for the compiler's it answers no to everything.
struct Processor {
  bool avx2 = false, avx_vnni = false, avx512 = false, avx512_vnni = false, avx512_bf16 = false, amx = false;
  bool intel = false;

  Processor() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(0, &a, &b, &c, &d) == 0) return;
    intel = b == 0x756e6547;  // "Genu"
    if (__get_cpuid(1, &a, &b, &c, &d) == 0) return;
    const bool fma = (c & 1U << 12) != 0, saves = (c & 1U << 27) != 0, avx = (c & 1U << 28) != 0;
    if (!fma || !saves || !avx) return;
    unsigned state = 0, upper = 0;  // registers that the operating system keeps for a thread
    __asm__("xgetbv" : "=a"(state), "=d"(upper) : "c"(0));
    constexpr unsigned kYmm = 0x06, kZmm = 0xe6, kTiles = 0x60000;
    if ((state & kYmm) != kYmm || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return;
    constexpr unsigned kAvx512 = 1U << 16 | 1U << 17 | 1U << 30 | 1U << 31;  // F, DQ, BW, VL
    const unsigned subleaves = a, kAmx = 1U << 22 | 1U << 24 | 1U << 25;  // bf16, tiles, int8
    const bool tiles = (d & kAmx) == kAmx;
    avx2 = (b & 1U << 5) != 0;
    avx512 = avx2 && (b & kAvx512) == kAvx512 && (state & kZmm) == kZmm;
    avx512_vnni = avx512 && (c & 1U << 11) != 0;
    if (subleaves < 1 || __get_cpuid_count(7, 1, &a, &b, &c, &d) == 0) return;
    avx_vnni = avx2 && (a & 1U << 4) != 0;
    avx512_bf16 = avx512_vnni && (a & 1U << 5) != 0;
    amx = avx512_bf16 && tiles && (state & kTiles) == kTiles && may_use_tiles();
  }

  // Linux keeps tile registers for the threads of a process that has asked, and for its children.
  static bool may_use_tiles() {
#if defined(__linux__) && defined(SYS_arch_prctl)
    constexpr int kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
  }
};

}  // namespace
#elif defined(BGERT_ARM64)
namespace {

// What the system says that a process may use.
struct Processor {
  bool dotprod = false, i8mm = false, bf16 = false;

#if defined(__linux__)
  Processor() {
    const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    dotprod = (first & 1UL << 20) != 0;
    i8mm = dotprod && (second & 1UL << 13) != 0;
    bf16 = i8mm && (second & 1UL << 14) != 0;
  }
#elif defined(__APPLE__)
  Processor() {
    const auto has = [](const char* name) {
      int value = 0;
      std::size_t size = sizeof value;
      return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
    };
    dotprod = has("hw.optional.arm.FEAT_DotProd");
    i8mm = dotprod && has("hw.optional.arm.FEAT_I8MM");
    bf16 = i8mm && has("hw.optional.arm.FEAT_BF16");
  }
#endif
};

}  // namespace
#endif

const Kernels* choose_kernels(const char* wanted) {
  const Kernels* available[7] = {};
  std::size_t count = 0;
#ifdef BGERT_X86
  const Processor processor;
  if (processor.amx) available[count++] = &kernels_avx512amx;
  // Intel's processors multiply bfloat16 in these registers at half of the speed of float32, for they have tiles.
  const bool slow_bf16 = processor.intel;
  if (processor.avx512_bf16 && !slow_bf16) available[count++] = &kernels_avx512bf16;
  if (processor.avx512_vnni) available[count++] = &kernels_avx512vnni;
  if (processor.avx512_bf16 && slow_bf16) available[count++] = &kernels_avx512bf16;
  if (processor.avx512) available[count++] = &kernels_avx512;
  if (processor.avx_vnni) available[count++] = &kernels_avx2vnni;
  if (processor.avx2) available[count++] = &kernels_avx2;
#elif defined(BGERT_ARM64)
  const Processor processor;
  if (processor.bf16) available[count++] = &kernels_neonbf16;
  if (processor.i8mm) available[count++] = &kernels_neoni8mm;
  if (processor.dotprod) available[count++] = &kernels_neondot;
#endif
  available[count++] = &kernels_baseline;
  if (wanted == nullptr || *wanted == '\0') return available[0];
  for (std::size_t i = 0; i < count; ++i) {
    if (std::strcmp(available[i]->name, wanted) == 0) return available[i];
  }
  return nullptr;
}

}  // namespace bgert
