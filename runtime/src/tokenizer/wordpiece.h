// Greedy longest-match-first segmentation of one word.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "byte_trie.h"
#include "text_model.h"
#include "word_key.h"

namespace bgert {

struct WordPieceOptions {
  std::string unk_token = "[UNK]";
  std::string continuing_subword_prefix = "##";
  std::size_t max_input_chars_per_word = 100;
};

constexpr std::size_t kMostWordChars = 1000;  // a word of n characters may cost n * n steps

class WordPiece {
 public:
  /// `vocab[i]` is the token with id `i`. Throws std::invalid_argument if the unknown token is not among them, or
  /// a size is out of bounds.
  WordPiece(const std::vector<std::string>& vocab, const WordPieceOptions& options);

  TokenId unk_id() const { return unk_id_; }
  std::size_t vocab_size() const { return vocab_size_; }
  std::size_t max_chars() const { return max_chars_; }

  /// The id of a word of one character.
  TokenId character(char32_t cp) const;

  /// The id of a short word that is a token as it stands, or -1.
  TokenId whole_word(const WordKey& key) const {
    for (std::size_t i = static_cast<std::size_t>(key.hash() >> whole_shift_);; i = (i + 1) & (whole_.size() - 1)) {
      const WholeWord& entry = whole_[i];
      if (entry.key == key || entry.id < 0) return entry.id;
    }
  }

  /// Appends the ids of a word that has at most max_chars() characters.
  void segment(std::string_view word, std::vector<TokenId>& ids) const;

 private:
  struct WholeWord {
    WordKey key;
    TokenId id = -1;  ///< -1: free
  };

  void add_whole_word(std::string_view token, TokenId id);

  ByteTrie trie_;
  ByteTrie::Node continuation_;
  std::vector<WholeWord> whole_;  // a power of two, at most half full
  unsigned whole_shift_;
  std::size_t vocab_size_, max_chars_;
  TokenId unk_id_ = -1;
};

}  // namespace bgert
