// Finds, lower-cases and packs an ASCII word, eight bytes at a time.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "word_key.h"

namespace bgert {

/// The letters and digits at the start of eight bytes.
struct AlnumRun {
  std::uint64_t bytes;  ///< the run, zeros after it
  unsigned length;      ///< 0 to 8
};

template <bool kLowercase>
inline AlnumRun alnum_run(std::uint64_t x) {
  constexpr std::uint64_t kOnes = 0x0101010101010101ULL;
  constexpr std::uint64_t kHigh = 0x80 * kOnes;
  const auto at_least = [](std::uint64_t seven_bit, std::uint64_t byte) {
    return seven_bit + (0x80 - byte) * kOnes;  // the high bit of each byte tells
  };
  const std::uint64_t seven = x & ~kHigh;
  const std::uint64_t folded = seven | 0x20 * kOnes;
  const std::uint64_t letter = at_least(folded, 'a') & ~at_least(folded, 'z' + 1);
  const std::uint64_t digit = at_least(seven, '0') & ~at_least(seven, '9' + 1);
  const std::uint64_t other = ~((letter | digit) & ~x) & kHigh;
  if constexpr (kLowercase) x |= (letter & kHigh) >> 2;
  if (other == 0) return {x, 8};
  const auto length = static_cast<unsigned>(std::countr_zero(other)) / 8;
  return {x & ((std::uint64_t{1} << (8 * length)) - 1), length};
}

/// The letters and digits at `p`, of which 16 bytes can be read; a length of 16 may mean more.
template <bool kLowercase>
inline std::size_t ascii_word(const char* p, WordKey& key) {
  const AlnumRun low = alnum_run<kLowercase>(load_eight(p));
  key.low = low.bytes;
  key.high = 0;
  if (low.length < 8) return low.length;
  const AlnumRun high = alnum_run<kLowercase>(load_eight(p + 8));
  key.high = high.bytes;
  return 8 + high.length;
}

}  // namespace bgert
