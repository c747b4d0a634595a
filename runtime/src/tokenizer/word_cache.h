// A small two-way cache from short words to their ids, for one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "text_model.h"
#include "word_key.h"

namespace bgert {

class WordCache {
 public:
  static constexpr std::size_t kMaxIds = 3;

  struct alignas(32) Entry {
    WordKey key;
    TokenId ids[kMaxIds];
    std::uint32_t count;
  };
  struct alignas(64) Set {
    Entry ways[2];
  };

  WordCache() : sets_(std::size_t{1} << kBits) {}

  Set& set(const WordKey& key) {
    return sets_[static_cast<std::size_t>(key.hash() >> (64 - kBits))];
  }

  /// Stores ids in the place of the entry that was stored first.
  static const Entry& insert(Set& set, const WordKey& key, const TokenId* ids, std::size_t count) {
    set.ways[1] = set.ways[0];
    Entry& entry = set.ways[0];
    entry.key = key;
    std::memcpy(entry.ids, ids, count * sizeof *ids);
    entry.count = static_cast<std::uint32_t>(count);
    return entry;
  }

 private:
  static constexpr unsigned kBits = 12;
  std::vector<Set> sets_;
};

}  // namespace bgert
