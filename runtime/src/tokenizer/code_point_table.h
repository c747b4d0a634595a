// What a normaliser and BERT's pre-tokeniser together do to each code point, as one table.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "bert_normalizer.h"
#include "wordpiece.h"

namespace bgert {

class CodePointTable {
 public:
  enum Action : std::uint32_t {
    kCopy,    ///< part of a word, unchanged
    kDrop,    ///< vanishes
    kBreak,   ///< whitespace: ends a word
    kWord,    ///< a word of its own, whose id is the payload
    kMap,     ///< part of a word, changed: the payload says where the new bytes are
    kHangul,  ///< part of a word, decomposed into jamo
    kOrder,   ///< needs canonical ordering with what follows
  };
  struct Entry {
    std::uint32_t bits = kCopy;
    Action action() const { return static_cast<Action>(bits & 7); }
    std::uint32_t payload() const { return bits >> 3; }
    friend bool operator==(Entry, Entry) = default;
  };

  /// `normalizer` null: the text is in normal form already and is only split.
  CodePointTable(const BertNormalizer* normalizer, const WordPiece& wordpiece);

  Entry operator[](char32_t cp) const { return pages_[index_[cp >> 8]][cp & 0xFF]; }
  Entry ascii(unsigned char byte) const { return pages_[0][byte]; }

  /// The bytes of a kMap entry, and how many characters they are.
  std::string_view mapped(Entry entry) const {
    const std::uint32_t payload = entry.payload();
    return {pool_.data() + (payload >> 8), payload >> 3 & 31};
  }
  static std::size_t mapped_chars(Entry entry) { return entry.payload() & 7; }

 private:
  using Page = std::array<Entry, 256>;

  Entry plain(char32_t cp, const WordPiece& wordpiece) const;
  Entry normalized(char32_t cp, const BertNormalizer& normalizer, const WordPiece& wordpiece);
  Entry map(std::string_view bytes, std::size_t chars);

  std::vector<Page> pages_;
  std::array<std::uint16_t, 0x1100> index_{};
  std::string pool_;
  std::unordered_map<std::string, Entry> known_;  // kMap entries by bytes, while the table is built
};

}  // namespace bgert
