#include "wordpiece.h"

#include <bit>
#include <cstdint>
#include <stdexcept>

#include "utf8.h"

namespace bgert {

WordPiece::WordPiece(const std::vector<std::string>& vocab, const WordPieceOptions& options)
    : continuation_(trie_.add_root()),
      whole_(std::bit_ceil(2 * vocab.size() + 2)),
      whole_shift_(64 - static_cast<unsigned>(std::countr_zero(whole_.size()))),
      vocab_size_(vocab.size()),
      max_chars_(options.max_input_chars_per_word) {
  if (vocab.size() > kMostTokens) throw std::invalid_argument(too_many_tokens());
  if (max_chars_ > kMostWordChars) {
    throw std::invalid_argument("max_input_chars_per_word is " + std::to_string(max_chars_) + ", more than " +
                                std::to_string(kMostWordChars));
  }
  const std::size_t longest = 4 * max_chars_;  // bytes of a word; no word contains a token of more
  const std::string& prefix = options.continuing_subword_prefix;
  for (std::size_t id = 0; id < vocab.size(); ++id) {
    const std::string_view token = vocab[id];
    if (token.empty()) continue;  // no word contains it
    if (unk_id_ < 0 && token == options.unk_token) unk_id_ = static_cast<TokenId>(id);
    if (token.size() <= longest) trie_.insert(0, token, static_cast<std::int32_t>(id));
    add_whole_word(token, static_cast<TokenId>(id));
    if (token.size() > prefix.size() && token.size() - prefix.size() <= longest && token.starts_with(prefix)) {
      trie_.insert(continuation_, token.substr(prefix.size()), static_cast<std::int32_t>(id));
    }
  }
  if (unk_id_ < 0) {
    throw std::invalid_argument("the unknown token '" + options.unk_token + "' is not in the vocabulary");
  }
}

void WordPiece::add_whole_word(std::string_view token, TokenId id) {
  if (token.size() > WordKey::kMaxBytes || token.find('\0') != std::string_view::npos) return;
  const WordKey key = WordKey::pack(token.data(), token.size());
  std::size_t i = static_cast<std::size_t>(key.hash() >> whole_shift_);
  while (whole_[i].id >= 0 && whole_[i].key != key) i = (i + 1) & (whole_.size() - 1);
  if (whole_[i].id < 0) whole_[i] = {key, id};
}

TokenId WordPiece::character(char32_t cp) const {
  char bytes[4];
  const TokenId id = max_chars_ == 0 ? unk_id_ : trie_.find(0, {bytes, encode_utf8(cp, bytes)});
  return id == ByteTrie::kNone ? unk_id_ : id;
}

void WordPiece::segment(std::string_view word, std::vector<TokenId>& ids) const {
  const std::size_t before = ids.size();
  ByteTrie::Node root = 0;
  while (!word.empty()) {
    const ByteTrie::Match piece = trie_.longest(root, word);
    if (piece.value == ByteTrie::kNone) {
      ids.resize(before);
      ids.push_back(unk_id_);
      return;
    }
    ids.push_back(piece.value);
    word.remove_prefix(piece.length);
    root = continuation_;
  }
}

}  // namespace bgert
