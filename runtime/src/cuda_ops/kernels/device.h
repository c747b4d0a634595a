// What kernels use of a GPU, each by the one instruction that it is: NVRTC compiles them without any header.
// With BGERT_EMULATED the same names come from tools/fake_cuda/emulator.h, which runs a block's threads on a CPU.
// Numbers are float16 in memory and float32 in registers.
#pragma once

#if defined(BGERT_EMULATED)
#include "emulator.h"
#else

#define KERNEL extern "C" __global__
#define KERNEL_OF(...) extern "C" __global__ __launch_bounds__(__VA_ARGS__)
#define DEVICE __device__ __forceinline__
#define SHARED(name) unsigned char* const name = block_memory
#define UNROLL _Pragma("unroll")

extern __shared__ __align__(16) unsigned char block_memory[];

// 16 bytes, as eight float16 or as they are.
struct alignas(16) Pack {
  unsigned words[4];
};

DEVICE int thread() { return static_cast<int>(threadIdx.x); }
DEVICE int block_x() { return static_cast<int>(blockIdx.x); }
DEVICE int block_y() { return static_cast<int>(blockIdx.y); }
DEVICE int blocks_x() { return static_cast<int>(gridDim.x); }
DEVICE void sync_block() { __syncthreads(); }
DEVICE void sync_warp() { __syncwarp(); }
DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
DEVICE int shuffle_up(int value, int distance) { return __shfl_up_sync(0xffffffffu, value, distance); }

// Memory that no thread of this launch writes. One load of 16 bytes: left alone, the compiler makes four.
DEVICE Pack load16(const void* from) {
  Pack pack;
  asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(pack.words[0]), "=r"(pack.words[1]), "=r"(pack.words[2]), "=r"(pack.words[3])
      : "l"(from));
  return pack;
}
DEVICE Pack load16_written(const void* from) {
  Pack pack;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(pack.words[0]), "=r"(pack.words[1]), "=r"(pack.words[2]), "=r"(pack.words[3])
               : "l"(from));
  return pack;
}
DEVICE void store16(void* to, const Pack& pack) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(pack.words[0]), "r"(pack.words[1]),
               "r"(pack.words[2]), "r"(pack.words[3])
               : "memory");
}

DEVICE unsigned pack2(float low, float high) {
  unsigned word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
DEVICE void unpack2(unsigned word, float& low, float& high) {
  asm("{.reg .f16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b;}"
      : "=f"(low), "=f"(high)
      : "r"(word));
}

DEVICE float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEVICE float inverse(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
DEVICE float inverse_root(float x) { return 1.0f / sqrtf(x); }
DEVICE float root(float x) { return sqrtf(x); }
DEVICE float larger(float a, float b) { return fmaxf(a, b); }

DEVICE unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}
// Global to shared memory, without waiting; zeros where `from` is not to be read.
DEVICE void copy16_async(void* to, const void* from, bool read) {
  const int bytes = read ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
               : "memory");
}
DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT>
DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// Four matrices of 8 x 8 float16 whose rows the lanes point to: lane i to row i % 8 of matrix i / 8.
DEVICE void load_matrices(unsigned (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
DEVICE void load_matrices_transposed(unsigned (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row))
               : "memory");
}
// sums [16, 8] += a [16, 16] * b [16, 8], in float32.
DEVICE void multiply_add(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
               "{%0, %1, %2, %3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

using half = unsigned short;  // the bits of a float16

constexpr int kWarp = 32;
constexpr int kVector = 8;  // float16 in 16 bytes

DEVICE void unpack(const Pack& pack, float (&values)[kVector]) {
  UNROLL for (int i = 0; i < 4; ++i) unpack2(pack.words[i], values[2 * i], values[2 * i + 1]);
}
DEVICE Pack packed(const float (&values)[kVector]) {
  Pack pack;
  UNROLL for (int i = 0; i < 4; ++i) pack.words[i] = pack2(values[2 * i], values[2 * i + 1]);
  return pack;
}

// The sum over a warp, in every lane.
DEVICE float sum_of_warp(float value) {
  UNROLL for (int mask = kWarp / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}

// The sum over `warps` warps that are a block, in every thread. `room` is shared memory for as many numbers, not to be
// used again before another one's sum.
template <int WARPS>
DEVICE float sum_of_block(float value, float* room) {
  value = sum_of_warp(value);
  if (WARPS == 1) return value;
  if (thread() % kWarp == 0) room[thread() / kWarp] = value;
  sync_block();
  float sum = 0.0f;
  UNROLL for (int warp = 0; warp < WARPS; ++warp) sum += room[warp];
  return sum;
}
