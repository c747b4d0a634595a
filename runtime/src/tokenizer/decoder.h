// Tokens back to text, as the decoders of HF tokenizers do it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace bgert {

class TextModel;

/// No token has this id.
struct UnknownIdError : std::invalid_argument {
  UnknownIdError(std::size_t at, std::int64_t unknown)
      : std::invalid_argument("no token has this id"), index(at), id(unknown) {}
  std::size_t index;
  std::int64_t id;
};

/// The text of ids. Throws UnknownIdError.
std::string decode(const TextModel& model, std::span<const std::int64_t> ids, bool skip_special_tokens);

/// HF's `WordPiece` decoder with `cleanup`: words with a space between them, none before punctuation.
std::string join_wordpieces(std::span<const std::string_view> tokens, std::string_view continuing_subword_prefix);

/// HF's `Metaspace` decoder: word marks become spaces, but for those of the first token.
std::string join_metaspace(std::span<const std::string_view> tokens);

}  // namespace bgert
