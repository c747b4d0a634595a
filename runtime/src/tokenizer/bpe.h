// Byte pair encoding of one word: of all neighbours that have a merge, the pair of the lowest rank becomes one token, the
// leftmost of equals first, until no pair is left.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "bpe_file.h"
#include "byte_trie.h"
#include "text_model.h"

namespace bgert {

/// Room for a long word.
struct BpeBuffers {
  struct Symbol {
    TokenId id;
    std::uint32_t previous, next;  ///< numbers of the neighbours
  };
  std::vector<Symbol> symbols;
  std::vector<std::uint64_t> queue;  ///< rank << 32 | number of the left symbol, the least on top
};

class Bpe {
 public:
  static constexpr std::size_t kShort = 64;  ///< bytes of a word that needs no buffers

  /// `whole_words`: a word that is a token needs no merges (HF's `ignore_merges`). Throws std::invalid_argument if a byte
  /// of UTF-8 has no token, a token or a merge is there twice.
  Bpe(const BpeFile& file, bool whole_words);

  /// Appends the ids of a word of at least one byte.
  void segment(std::string_view word, BpeBuffers& buffers, std::vector<TokenId>& ids) const;

  /// Writes the ids of a word of 1 to kShort bytes, and returns how many.
  std::size_t segment_short(std::string_view word, TokenId* ids) const;

  /// How many bytes of a text a token stands for.
  std::size_t length(TokenId id) const { return lengths_[static_cast<std::size_t>(id)]; }

 private:
  static constexpr std::uint32_t kNone = static_cast<std::uint32_t>(-1);

  struct Entry {
    std::uint64_t pair = static_cast<std::uint64_t>(-1);  ///< left << 32 | right; all ones: free
    std::uint32_t rank = kNone;
    TokenId merged = -1;
  };

  static constexpr unsigned kFilterBits = 3;  // log2 of the bits for a place in the table

  /// What two bytes become.
  struct BytePair {
    std::uint32_t rank = kNone;
    TokenId merged = -1;
  };

  static std::uint64_t pair_of(TokenId left, TokenId right) {
    return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
  }

  /// What two neighbours become; the rank is kNone if they have no merge.
  const Entry& merge_of(TokenId left, TokenId right) const {
    const std::uint64_t pair = pair_of(left, right);
    const std::uint64_t hash = hash_of(pair);
    const auto bit = static_cast<std::size_t>(hash >> (shift_ - kFilterBits));
    if ((filter_[bit / 64] >> bit % 64 & 1) == 0) return none_;
    for (auto i = static_cast<std::size_t>(hash >> shift_);; i = (i + 1) & (table_.size() - 1)) {
      const Entry& entry = table_[i];
      if (entry.pair == pair || entry.rank == kNone) return entry;
    }
  }

  static std::uint64_t hash_of(std::uint64_t pair) { return (pair ^ pair >> 29) * 0x9E3779B97F4A7C15ULL; }

  TokenId whole_word(std::string_view word) const;
  void merge_long(std::string_view word, BpeBuffers& buffers, std::vector<TokenId>& ids) const;

  std::array<TokenId, 256> bytes_;
  std::vector<std::uint32_t> lengths_;  // by id
  std::vector<Entry> table_;            // a power of two, at most half full
  unsigned shift_;
  std::vector<std::uint64_t> filter_;  // a bit of every hash in the table: most pairs have no merge, and it is small
  Entry none_;
  std::vector<BytePair> byte_pairs_;  // by left << 8 | right
  bool whole_words_;
  ByteTrie words_;  // bytes of every token, if whole_words_
};

}  // namespace bgert
