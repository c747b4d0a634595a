// Finds added tokens in a text as HF's AddedVocabulary does.
#pragma once

#include <bitset>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "byte_trie.h"
#include "text_model.h"

namespace bgert {

/// A stretch of text between added tokens, or one added token.
struct Segment {
  std::string_view text;  ///< what the segment covers, with the whitespace that a token strips
  TokenId id = kText;
  static constexpr TokenId kText = -1;
  bool is_token() const { return id != kText; }
};

/// One set of added tokens: those matched on raw text or those matched on normalised text.
class AddedTokens {
 public:
  AddedTokens() = default;

  /// `patterns[i]` is what to look for to find `tokens[i]`: its content, normalised if the token is.
  AddedTokens(std::vector<AddedToken> tokens, const std::vector<std::string>& patterns);

  bool empty() const { return tokens_.empty(); }

  /// Goes through a text from left to right: leftmost match first, of those the longest.
  class Cursor {
   public:
    Cursor(const AddedTokens& tokens, std::string_view text, bool split_special_tokens)
        : tokens_(tokens), text_(text), split_special_(split_special_tokens) {}

    /// Sets `segment` to the next one; false at the end. Segments of text are never empty.
    bool next(Segment& segment);

   private:
    void search();

    const AddedTokens& tokens_;
    std::string_view text_;
    bool split_special_;
    std::size_t done_ = 0;    // end of the last segment
    std::size_t search_ = 0;  // where the next search begins
    bool pending_ = false;    // a token was found and its segment is not given out yet
    Segment token_;
    std::size_t token_start_ = 0;
    std::size_t space_start_ = 0, space_stop_ = 0;  // whitespace that was stripped from the right of a token
  };

 private:
  struct Found {
    std::size_t index = 0, start = 0, stop = 0;
  };

  bool find(std::string_view text, std::size_t from, Found& found) const;

  std::vector<AddedToken> tokens_;
  ByteTrie trie_;
  std::bitset<256> first_bytes_;
  int only_first_byte_ = -1;  // set when all patterns begin alike, for memchr
};

/// Splits tokens into those matched on raw text and those matched on normalised text.
struct AddedTokenSets {
  std::vector<AddedToken> raw, normalized;
  std::size_t id_count = 0;  ///< their ids and those of the vocabulary are below this
};

/// Throws std::invalid_argument if a token has no id of the vocabulary or just after it, nothing or too much to look
/// for, or is there twice.
AddedTokenSets partition(const std::vector<AddedToken>& tokens, std::size_t vocab_size);

}  // namespace bgert
