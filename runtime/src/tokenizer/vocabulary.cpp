#include "vocabulary.h"

namespace bgert {

std::string_view Vocabulary::piece(TokenId id) const {
  const auto index = static_cast<std::size_t>(id);
  if (id < 0 || index + 1 >= begins_.size()) return {};
  return std::string_view(bytes_).substr(begins_[index], begins_[index + 1] - begins_[index]);
}

std::optional<std::string_view> Vocabulary::token(TokenId id) const {
  if (const auto found = added_.find(id); found != added_.end()) return found->second;
  const std::string_view own = piece(id);
  if (own.empty()) return std::nullopt;
  return own;
}

}  // namespace bgert
