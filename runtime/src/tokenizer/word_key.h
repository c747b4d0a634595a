// Short words packed into two integers, the keys of the word tables.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bgert {

/// Eight bytes as a number whose lowest byte is the first.
inline std::uint64_t load_eight(const char* p) {
  std::uint64_t value;
  std::memcpy(&value, p, sizeof value);
  if constexpr (std::endian::native == std::endian::big) value = __builtin_bswap64(value);
  return value;
}

inline void store_eight(std::uint64_t value, char* p) {
  if constexpr (std::endian::native == std::endian::big) value = __builtin_bswap64(value);
  std::memcpy(p, &value, sizeof value);
}

/// A word of 1 to 16 bytes without NUL, padded with zeros; all zeros marks a free entry.
struct WordKey {
  static constexpr std::size_t kMaxBytes = 16;

  std::uint64_t low = 0, high = 0;

  /// Takes up to 16 bytes that hold no NUL.
  static WordKey pack(const char* p, std::size_t length) {
    char bytes[kMaxBytes] = {};
    std::memcpy(bytes, p, length);
    return {load_eight(bytes), load_eight(bytes + 8)};
  }

  /// Writes 16 bytes.
  void unpack(char* p) const {
    store_eight(low, p);
    store_eight(high, p + 8);
  }

  /// A hash whose upper bits are good.
  std::uint64_t hash() const {
    constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15ULL;
    return (low ^ std::rotl(high * kMultiplier, 29)) * kMultiplier;
  }

  friend bool operator==(const WordKey&, const WordKey&) = default;
};

}  // namespace bgert
