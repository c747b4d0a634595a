// Runs the kernels of runtime/src/cuda_ops/kernels on a CPU, with the names that their device.h has on a GPU.
//
// The threads of a block are fibers of one thread, which go on in turns from one meeting of a warp or block to the next.
// What a GPU leaves open is as bad as can be: shared memory begins as NaNs, copies arrive when they are waited for and
// not before, and a kernel whose threads do not all come to a meeting ends the program.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#define KERNEL extern "C"
#define KERNEL_OF(...) extern "C"
#define DEVICE inline
#define SHARED(name) unsigned char* const name = emulator::block->shared.data()
#define UNROLL

struct alignas(16) Pack {
  unsigned words[4];
};

namespace emulator {

struct Meeting {
  int arrived = 0;
  unsigned generation = 0;
};

struct Copy {
  unsigned char* to;
  const void* from;  // null for zeros
};

constexpr std::size_t kStack = 1 << 16;

struct Fiber {
  ucontext_t context;  // to begin with; from then on the jumps, which make no system call
  jmp_buf at;
  bool begun = false;
  std::unique_ptr<char[]> stack{new char[kStack]};
  std::vector<std::vector<Copy>> copies{1};  // the groups not yet waited for, the last one open
  unsigned meetings = 0;
  bool done = false;
};

struct Lane {
  unsigned words[2];
  float a[8], b[4];
  const void* pointer;
};

struct Block {
  std::vector<Fiber>& fibers;
  int x = 0, y = 0, grid_x = 1, threads = 1;
  std::function<void()> kernel{};
  std::vector<unsigned char> shared{};
  std::vector<Meeting> warps{};
  std::vector<std::vector<Lane>> lanes{};  // what the lanes of a warp show each other, two meetings deep
  Meeting all{};
  jmp_buf scheduler{};
  int now = 0;
  long long turns = 0;
};

inline Block* block = nullptr;

inline Fiber& fiber() { return block->fibers[static_cast<std::size_t>(block->now)]; }

// To the scheduler, and back here when it is this fiber's turn again.
inline void wait_turn() {
  if (_setjmp(fiber().at) == 0) _longjmp(block->scheduler, 1);
}

inline void meet(Meeting& meeting, int count) {
  const unsigned generation = meeting.generation;
  if (++meeting.arrived == count) {
    meeting.arrived = 0;
    ++meeting.generation;
    block->turns = 0;
  }
  while (meeting.generation == generation) wait_turn();
}

inline void begin() {
  block->kernel();
  fiber().done = true;
  block->turns = 0;
  _longjmp(block->scheduler, 1);
}

inline void resume() {
  if (_setjmp(block->scheduler) != 0) return;
  if (fiber().begun) _longjmp(fiber().at, 1);
  fiber().begun = true;
  setcontext(&fiber().context);
}

inline void run_block(Block& of) {
  block = &of;
  const auto count = static_cast<std::size_t>(of.threads);
  while (of.fibers.size() < count) of.fibers.emplace_back();
  of.warps.assign((count + 31) / 32, {});
  of.lanes.assign(2 * of.warps.size(), std::vector<Lane>(32));
  of.all = {};
  std::memset(of.shared.data(), 0xff, of.shared.size());
  for (std::size_t i = 0; i < count; ++i) {
    Fiber& fiber = of.fibers[i];
    fiber.copies.assign(1, {});
    fiber.done = fiber.begun = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, begin, 0);
  }
  for (std::size_t left = count; left > 0;) {
    if (++of.turns > 4) {
      std::fprintf(stderr, "emulator: the threads of a block do not all come to a meeting\n");
      std::abort();
    }
    left = 0;
    for (of.now = 0; of.now < of.threads; ++of.now) {
      if (fiber().done) continue;
      resume();
      left += fiber().done ? 0 : 1;
    }
  }
}

inline void run_grid(int grid_x, int grid_y, int threads, std::size_t shared, const std::function<void()>& kernel) {
  static thread_local std::vector<Fiber> fibers;  // kept from launch to launch, for their stacks
  Block of{.fibers = fibers};
  of.grid_x = grid_x;
  of.threads = threads;
  of.kernel = kernel;
  of.shared.resize(shared + 16);
  for (of.y = 0; of.y < grid_y; ++of.y) {
    for (of.x = 0; of.x < grid_x; ++of.x) run_block(of);
  }
}

inline float to_float(unsigned bits) {
  const auto half = static_cast<std::uint16_t>(bits);
  _Float16 number;
  std::memcpy(&number, &half, 2);
  return static_cast<float>(number);
}
inline unsigned to_half(float value) {
  const auto number = static_cast<_Float16>(value);
  std::uint16_t bits;
  std::memcpy(&bits, &number, 2);
  return bits;
}

// Shows `mine` to the warp and gives what all lanes show. Two places in turn: who is late still reads the last one.
inline const std::vector<Lane>& exchange(const Lane& mine) {
  const int warp = block->now / 32;
  std::vector<Lane>& lanes = block->lanes[static_cast<std::size_t>(2 * warp) + fiber().meetings++ % 2];
  lanes[static_cast<std::size_t>(block->now % 32)] = mine;
  meet(block->warps[static_cast<std::size_t>(warp)], 32);
  return lanes;
}

inline unsigned halves(const unsigned char* low, const unsigned char* high) {
  std::uint16_t a, b;
  std::memcpy(&a, low, 2);
  std::memcpy(&b, high, 2);
  return a | static_cast<unsigned>(b) << 16;
}

}  // namespace emulator

DEVICE int thread() { return emulator::block->now; }
DEVICE int block_x() { return emulator::block->x; }
DEVICE int block_y() { return emulator::block->y; }
DEVICE int blocks_x() { return emulator::block->grid_x; }
DEVICE void sync_block() { emulator::meet(emulator::block->all, emulator::block->threads); }
DEVICE void sync_warp() { emulator::exchange({}); }
DEVICE float shuffle_xor(float value, int mask) {
  emulator::Lane lane{};
  lane.a[0] = value;
  return emulator::exchange(lane)[static_cast<std::size_t>((thread() % 32) ^ mask)].a[0];
}
DEVICE int shuffle_up(int value, int distance) {
  emulator::Lane lane{};
  lane.words[0] = static_cast<unsigned>(value);
  const int own = thread() % 32, from = own < distance ? own : own - distance;
  return static_cast<int>(emulator::exchange(lane)[static_cast<std::size_t>(from)].words[0]);
}

DEVICE Pack load16(const void* from) {
  Pack pack;
  if (reinterpret_cast<std::uintptr_t>(from) % 16) std::abort();
  std::memcpy(&pack, from, 16);
  return pack;
}
DEVICE Pack load16_written(const void* from) { return load16(from); }
DEVICE void store16(void* to, const Pack& pack) {
  if (reinterpret_cast<std::uintptr_t>(to) % 16) std::abort();
  std::memcpy(to, &pack, 16);
}
DEVICE unsigned pack2(float low, float high) { return emulator::to_half(low) | emulator::to_half(high) << 16; }
DEVICE void unpack2(unsigned word, float& low, float& high) {
  low = emulator::to_float(word & 0xffff);
  high = emulator::to_float(word >> 16);
}

DEVICE float exp2_of(float x) { return std::exp2(x); }
DEVICE float inverse(float x) { return 1.0f / x; }
DEVICE float inverse_root(float x) { return 1.0f / std::sqrt(x); }
DEVICE float root(float x) { return std::sqrt(x); }
DEVICE float larger(float a, float b) { return std::fmax(a, b); }

DEVICE void copy16_async(void* to, const void* from, bool read) {
  emulator::fiber().copies.back().push_back({static_cast<unsigned char*>(to), read ? from : nullptr});
}
DEVICE void commit_copies() { emulator::fiber().copies.emplace_back(); }
template <int LEFT>
DEVICE void wait_copies() {
  auto& groups = emulator::fiber().copies;
  while (groups.size() > LEFT + 1) {
    for (const emulator::Copy& copy : groups.front()) {
      if (copy.from != nullptr) {
        std::memcpy(copy.to, copy.from, 16);
      } else {
        std::memset(copy.to, 0, 16);
      }
    }
    groups.erase(groups.begin());
  }
}

DEVICE void load_matrices(unsigned (&to)[4], const void* row) {
  emulator::Lane lane{};
  lane.pointer = row;
  const auto& lanes = emulator::exchange(lane);
  const int own = thread() % 32;
  for (int m = 0; m < 4; ++m) {
    const auto* of = static_cast<const unsigned char*>(lanes[static_cast<std::size_t>(8 * m + own / 4)].pointer);
    to[m] = emulator::halves(of + own % 4 * 4, of + own % 4 * 4 + 2);
  }
  emulator::exchange({});  // the rows stay as they are until everybody has read
}
DEVICE void load_matrices_transposed(unsigned (&to)[4], const void* row) {
  emulator::Lane lane{};
  lane.pointer = row;
  const auto& lanes = emulator::exchange(lane);
  const int own = thread() % 32;
  for (int m = 0; m < 4; ++m) {
    const auto at = static_cast<std::size_t>(8 * m + own % 4 * 2);
    const auto* low = static_cast<const unsigned char*>(lanes[at].pointer) + own / 4 * 2;
    const auto* high = static_cast<const unsigned char*>(lanes[at + 1].pointer) + own / 4 * 2;
    to[m] = emulator::halves(low, high);
  }
  emulator::exchange({});
}
DEVICE void multiply_add(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  emulator::Lane lane{};
  for (int i = 0; i < 4; ++i) unpack2(a[i], lane.a[2 * i], lane.a[2 * i + 1]);
  unpack2(b0, lane.b[0], lane.b[1]);
  unpack2(b1, lane.b[2], lane.b[3]);
  const auto& lanes = emulator::exchange(lane);
  const int own = thread() % 32;
  for (int i = 0; i < 4; ++i) {
    const int row = own / 4, column = own % 4 * 2 + i % 2;
    for (int k = 0; k < 16; ++k) {
      const float left = lanes[static_cast<std::size_t>(row * 4 + k % 8 / 2)].a[2 * (i / 2 + k / 8 * 2) + k % 2];
      const float right = lanes[static_cast<std::size_t>(column * 4 + k % 8 / 2)].b[k / 8 * 2 + k % 2];
      sums[i] += left * right;
    }
  }
}
