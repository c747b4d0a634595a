// Products of matrices of 2 x 2 on ARM: an instruction takes 8 bytes of each of two rows and of each of two columns.
//
// Rows lie one behind the other, and panels hold 4 bytes of one column after another. Two zips of registers make columns
// of 8 bytes; rows are laid side by side once for all columns of a panel, a piece of the depth at a time.
#pragma once

#include <arm_neon.h>

#include "kernels.h"
#include "simd.h"

#if defined(__ARM_FEATURE_MATMUL_INT8)

namespace {

constexpr int kBlockRows = 12, kBlockVecs = bgert::kPanelColumns / kLanes;
constexpr Size kBlockBytes = 512;  // of a row at a time: 6 KiB of rows, 16 KiB of the panel
constexpr int kPieces = 4;         // of a panel, of 8 columns each: 6 x 4 sums in registers

// [rows][bytes] to [bytes / 8][pairs of rows][2][8]; what is missing of the last 8 bytes is 0, of the last pair anything.
template <int Pairs>
inline void pack_rows(const unsigned char* x, Size stride, int rows, Size bytes, unsigned char* to) {
#pragma GCC unroll 8
  for (int pair = 0; pair < Pairs; ++pair, to += 16) {
    const unsigned char* first = x + static_cast<Size>(2 * pair) * stride;
    const unsigned char* second = 2 * pair + 1 < rows ? first + stride : first;
    Size i = 0;
    for (; i + 16 <= bytes; i += 16) {
      const uint64x2_t a = vreinterpretq_u64_u8(vld1q_u8(first + i)), b = vreinterpretq_u64_u8(vld1q_u8(second + i));
      vst1q_u8(to + i / 8 * 16 * Pairs, vreinterpretq_u8_u64(vzip1q_u64(a, b)));
      vst1q_u8(to + (i / 8 + 1) * 16 * Pairs, vreinterpretq_u8_u64(vzip2q_u64(a, b)));
    }
    for (; i < bytes; i += 8) {
      unsigned char both[16] = {};
      const Size here = bytes - i < 8 ? bytes - i : 8;
      for (Size j = 0; j < here; ++j) {
        both[j] = first[i + j];
        both[8 + j] = second[i + j];
      }
      vst1q_u8(to + i / 8 * 16 * Pairs, vld1q_u8(both));
    }
  }
}

// 8 bytes of 8 columns times the rows; `low` and `high` are 4 and 4.
template <class Blocks, int Pairs>
[[gnu::always_inline]] inline void add_step(const unsigned char* rows, const uint32x4_t (&low)[2],
                                            const uint32x4_t (&high)[2], typename Blocks::Sum (&sums)[Pairs][4]) {
  const uint8x16_t columns[4] = {
      vreinterpretq_u8_u32(vzip1q_u32(low[0], high[0])), vreinterpretq_u8_u32(vzip2q_u32(low[0], high[0])),
      vreinterpretq_u8_u32(vzip1q_u32(low[1], high[1])), vreinterpretq_u8_u32(vzip2q_u32(low[1], high[1]))};
#pragma GCC unroll 8
  for (int pair = 0; pair < Pairs; ++pair) {
    const uint8x16_t two = vld1q_u8(rows + 16 * pair);
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) sums[pair][q] = Blocks::add(sums[pair][q], two, columns[q]);
  }
}

inline uint32x4_t load_columns(const unsigned char* from) { return vreinterpretq_u32_u8(vld1q_u8(from)); }

// total[rows][kBlockVecs] += rows of x times a panel; `bytes`, the depth, is a multiple of 4.
template <class Blocks, int Pairs, class Lanes>
[[gnu::noinline]] void add_pairs_of_rows(const unsigned char* x, Size stride, int rows, const unsigned char* panel, Size bytes,
                              Lanes* total) {
  using Sum = typename Blocks::Sum;
  constexpr Size kLine = 4 * bgert::kPanelColumns;  // bytes of a panel that 4 of each column take
  alignas(64) unsigned char packed[kBlockBytes / 8 * 16 * Pairs];
  Sum sums[kPieces][Pairs][4] = {};
  for (Size first = 0; first < bytes; first += kBlockBytes) {
    const Size here = bytes - first < kBlockBytes ? bytes - first : kBlockBytes;
    pack_rows<Pairs>(x + first, stride, rows, here, packed);
    for (int piece = 0; piece < kPieces; ++piece) {
      Sum local[Pairs][4];
      __builtin_memcpy(local, sums[piece], sizeof local);
      const unsigned char* columns = panel + first / 4 * kLine + 32 * piece;
      const unsigned char* two = packed;
      for (Size i = 0; i + 8 <= here; i += 8, columns += 2 * kLine, two += 16 * Pairs) {
        add_step<Blocks>(two, {load_columns(columns), load_columns(columns + 16)},
                         {load_columns(columns + kLine), load_columns(columns + kLine + 16)}, local);
      }
      if (here % 8 != 0) {
        add_step<Blocks>(two, {load_columns(columns), load_columns(columns + 16)}, {vdupq_n_u32(0), vdupq_n_u32(0)},
                         local);
      }
      __builtin_memcpy(sums[piece], local, sizeof local);
    }
  }
  for (int piece = 0; piece < kPieces; ++piece) {
    for (int row = 0; row < rows; ++row) {
      for (int half = 0; half < 2; ++half) {
        const auto left = reinterpret_cast<uint64x2_t>(sums[piece][row / 2][2 * half]);
        const auto right = reinterpret_cast<uint64x2_t>(sums[piece][row / 2][2 * half + 1]);
        total[row * kBlockVecs + 2 * piece + half] +=
            reinterpret_cast<Lanes>(row % 2 == 0 ? vzip1q_u64(left, right) : vzip2q_u64(left, right));
      }
    }
  }
}

template <class Blocks, int R, class Lanes>
inline void add_blocks(const unsigned char* x, Size stride, const unsigned char* panel, Size bytes,
                       Lanes (&total)[R][kBlockVecs]) {
  add_pairs_of_rows<Blocks, (R + 1) / 2>(x, stride, R, panel, bytes, &total[0][0]);
}

}  // namespace

#endif
