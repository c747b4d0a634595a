// A two-way cache from words to their ids, for one thread; larger entries than WordCache has.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "text_model.h"
#include "word_key.h"

namespace bgert {

/// A word of 1 to 32 bytes without NUL, padded with zeros; all zeros marks a free entry.
struct LongWordKey {
  static constexpr std::size_t kMaxBytes = 32;

  std::uint64_t parts[4];

  /// `p` may be read up to 32 bytes on, whatever the length, which is not 0.
  static LongWordKey load(const char* p, std::size_t length) {
    const auto last = [p, length](std::size_t at) {
      return load_eight(p + at) & ~std::uint64_t{0} >> 8 * (at + 8 - length);
    };
    if (length <= 8) return {last(0), 0, 0, 0};
    if (length <= 16) return {load_eight(p), last(8), 0, 0};
    if (length <= 24) return {load_eight(p), load_eight(p + 8), last(16), 0};
    return {load_eight(p), load_eight(p + 8), load_eight(p + 16), last(24)};
  }

  std::uint64_t hash() const {
    constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15ULL;
    const std::uint64_t low = (parts[0] ^ std::rotl(parts[1] * kMultiplier, 29)) * kMultiplier;
    if (parts[2] == 0) return low;
    return (low ^ std::rotl((parts[2] ^ std::rotl(parts[3] * kMultiplier, 31)) * kMultiplier, 23)) * kMultiplier;
  }

  friend bool operator==(const LongWordKey& a, const LongWordKey& b) {
    return ((a.parts[0] ^ b.parts[0]) | (a.parts[1] ^ b.parts[1]) | (a.parts[2] ^ b.parts[2]) |
            (a.parts[3] ^ b.parts[3])) == 0;
  }
};

class LongWordCache {
 public:
  static constexpr std::size_t kMaxIds = 7;

  struct alignas(64) Entry {
    LongWordKey key{};
    std::uint32_t count = 0;
    TokenId ids[kMaxIds] = {};
  };
  struct Set {
    Entry ways[2];
  };

  LongWordCache() : sets_(std::size_t{1} << kBits) {}

  Set& set(const LongWordKey& key) { return sets_[static_cast<std::size_t>(key.hash() >> (64 - kBits))]; }

  /// Stores ids in the place of the entry that was stored first.
  static void insert(Set& set, const LongWordKey& key, const TokenId* ids, std::size_t count) {
    set.ways[1] = set.ways[0];
    Entry& entry = set.ways[0];
    entry.key = key;
    entry.count = static_cast<std::uint32_t>(count);
    std::memcpy(entry.ids, ids, count * sizeof *ids);
  }

 private:
  static constexpr unsigned kBits = 13;
  std::vector<Set> sets_;
};

}  // namespace bgert
