// The tokens of a model by id, for everything that goes from ids back to text.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "text_model.h"

namespace bgert {

class Vocabulary {
 public:
  Vocabulary() = default;

  /// `pieces[i]` is the token with id `i`, empty if there is none; an added token takes precedence.
  template <typename Pieces>
  Vocabulary(const Pieces& pieces, const std::vector<AddedToken>& added_tokens) {
    begins_.reserve(pieces.size() + 1);
    for (const std::string_view piece : pieces) {
      begins_.push_back(bytes_.size());
      bytes_.append(piece);
    }
    begins_.push_back(bytes_.size());
    for (const AddedToken& token : added_tokens) {
      added_.emplace(token.id, token.content);
      if (token.special) specials_.insert(token.content);
    }
  }

  /// The token with an id, none if no token has it.
  std::optional<std::string_view> token(TokenId id) const;

  /// The model's own token with an id, empty if it has none.
  std::string_view piece(TokenId id) const;

  /// Whether this is the text of a special token.
  bool special(std::string_view token) const { return specials_.contains(std::string(token)); }

 private:
  std::string bytes_;                // the pieces one after the other
  std::vector<std::size_t> begins_;  // where each begins, and where the last ends
  std::unordered_map<TokenId, std::string> added_;
  std::unordered_set<std::string> specials_;
};

}  // namespace bgert
