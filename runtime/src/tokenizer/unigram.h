// The Unigram model: pieces with scores, and how the best segmentation of a word is found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "double_array.h"
#include "text_model.h"

namespace bgert {

/// U+2581, which stands for the space before a word.
constexpr std::string_view kWordMark = "\xE2\x96\x81";
constexpr char32_t kWordMarkCodePoint = 0x2581;

class Unigram {
 public:
  Unigram() = default;

  /// Pieces by id with their scores, of at most 1e290 either way. Of equal pieces the last counts, as in HF; empty ones never do.
  Unigram(const std::vector<std::string_view>& pieces, std::vector<double> scores, TokenId unk_id);

  const DoubleArray& trie() const { return trie_; }
  double score(TokenId id) const { return scores_[static_cast<std::size_t>(id)]; }
  double unk_score() const { return unk_score_; }
  TokenId unk_id() const { return unk_id_; }
  std::size_t size() const { return scores_.size(); }
  std::size_t longest_piece() const { return longest_piece_; }  ///< in bytes

  /// The node of the trie after a character, kRoot if no piece begins with it.
  DoubleArray::Node first(char32_t cp, std::string_view bytes) const {
    return cp < kFirstSize ? first_[cp] : walk(bytes);
  }

  /// The id of exactly this piece, or -1.
  TokenId find(std::string_view piece) const {
    const DoubleArray::Node node = walk(piece);
    return node == DoubleArray::kRoot ? -1 : trie_.value(node);
  }

 private:
  static constexpr char32_t kFirstSize = 0x10000;

  DoubleArray::Node walk(std::string_view bytes) const;

  DoubleArray trie_;
  std::vector<DoubleArray::Node> first_;
  std::vector<double> scores_;
  double unk_score_ = 0;
  TokenId unk_id_ = 0;
  std::size_t longest_piece_ = 0;
};

}  // namespace bgert
