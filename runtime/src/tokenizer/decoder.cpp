#include "decoder.h"

#include <array>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "text_model.h"
#include "unigram.h"
#include "vocabulary.h"

namespace bgert {
namespace {

/// `text` with every `from` replaced, left to right.
std::string replaced(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = text.find(from); at != std::string_view::npos; at = text.find(from)) {
    result.append(text.substr(0, at)).append(to);
    text.remove_prefix(at + from.size());
  }
  return result.append(text);
}

/// What HF's `cleanup` replaces, one after the other, within a token and the space before it.
constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kCleanup{{
    {" .", "."},
    {" ?", "?"},
    {" !", "!"},
    {" ,", ","},
    {" ' ", "'"},
    {" n't", "n't"},
    {" 'm", "'m"},
    {" do not", " don't"},
    {" 's", "'s"},
    {" 've", "'ve"},
    {" 're", "'re"},
}};

}  // namespace

std::string decode(const TextModel& model, std::span<const std::int64_t> ids, bool skip_special_tokens) {
  std::vector<std::string_view> tokens;
  tokens.reserve(ids.size());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const bool possible = ids[i] >= 0 && ids[i] <= std::numeric_limits<TokenId>::max();
    const auto token = possible ? model.vocabulary().token(static_cast<TokenId>(ids[i])) : std::nullopt;
    if (!token) throw UnknownIdError(i, ids[i]);
    if (!skip_special_tokens || !model.vocabulary().special(*token)) tokens.push_back(*token);
  }
  return model.join(tokens);
}

std::string join_wordpieces(std::span<const std::string_view> tokens, std::string_view prefix) {
  std::string text, part;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    std::string_view token = tokens[i];
    part.clear();
    if (i != 0 && token.starts_with(prefix)) {
      token.remove_prefix(prefix.size());
    } else if (i != 0) {
      part = ' ';
    }
    part += token;
    for (const auto& [from, to] : kCleanup) part = replaced(part, from, to);
    text += part;
  }
  return text;
}

std::string join_metaspace(std::span<const std::string_view> tokens) {
  std::string text;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    text += replaced(tokens[i], kWordMark, i == 0 ? "" : " ");
  }
  return text;
}

}  // namespace bgert
