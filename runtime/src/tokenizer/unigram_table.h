// What a charsmap and the split at whitespace do to each code point, as one table.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "precompiled_charsmap.h"

namespace bgert {

class UnigramTable {
 public:
  enum Action : std::uint32_t {
    kCopy,   ///< part of a word, unchanged
    kDrop,   ///< vanishes
    kSpace,  ///< becomes whitespace and nothing else
    kMap,    ///< part of a word, changed
    kMixed,  ///< becomes something with whitespace or a word mark in it, or something long
  };
  struct Entry {
    std::uint32_t bits = kCopy;
    Action action() const { return static_cast<Action>(bits & 7); }
    /// May join what stands before it to a cluster.
    bool attaches() const { return (bits & kAttachesBit) != 0; }
    /// May be of one cluster with a neighbour that does not attach.
    bool glues() const { return (bits & kGluesBit) != 0; }
    /// Its normal form holds a byte that a token which is matched there begins with.
    bool flagged() const { return (bits & kFlaggedBit) != 0; }
    std::uint32_t payload() const { return bits >> 6; }
    friend bool operator==(Entry, Entry) = default;
  };
  static constexpr std::uint32_t kAttachesBit = 8, kGluesBit = 16, kFlaggedBit = 32;
  static constexpr std::size_t kLongestMap = 48;

  /// `flagged`: first bytes of the tokens that are matched in normalised text.
  UnigramTable(const PrecompiledCharsmap& charsmap, const std::bitset<256>& flagged);

  Entry operator[](char32_t cp) const { return pages_[index_[cp >> 8]][cp & 0xFF]; }
  Entry ascii(unsigned char byte) const { return pages_[0][byte]; }

  /// ASCII that is part of a word and needs no more than copying.
  bool plain(unsigned char byte) const { return plain_[byte]; }

  /// The normal form of a kMap or kMixed entry.
  std::string_view mapped(Entry entry) const {
    const Mapped& where = mapped_[entry.payload()];
    return {pool_.data() + where.begin, where.size};
  }

 private:
  using Page = std::array<Entry, 256>;
  struct Mapped {
    std::uint32_t begin, size;
  };

  static bool uniform(char32_t first, const PrecompiledCharsmap& charsmap);
  Entry make(char32_t cp, const PrecompiledCharsmap& charsmap, const std::bitset<256>& flagged);

  std::vector<Page> pages_;
  std::array<std::uint16_t, 0x1100> index_{};
  std::array<bool, 256> plain_{};
  std::vector<Mapped> mapped_;
  std::string pool_;
};

/// What a piece of normalised text is to the split into words.
UnigramTable::Action kind_of(std::string_view normalized);

}  // namespace bgert
