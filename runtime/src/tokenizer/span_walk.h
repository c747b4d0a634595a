// The way through a text that the offsets of all models take: added tokens, normal form, added tokens in it, the rest.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "added_tokens.h"
#include "aligned_text.h"
#include "text_model.h"

namespace bgert {

/// Goes through `text`: `add_token(id, span of AlignedChar)` takes an added token, `normalize(AlignedText&)` brings what
/// lies between the `raw` ones into normal form, and `add_text(span of AlignedChar)` takes what then lies between the
/// `normalized` ones.
template <typename AddToken, typename Normalize, typename AddText>
void walk_spans(std::string_view text, const AddedTokens& raw, const AddedTokens& normalized, bool split_special_tokens,
                AddToken add_token, Normalize normalize, AddText add_text) {
  CharacterCursor characters(text);
  AddedTokens::Cursor segments(raw, text, split_special_tokens);
  for (Segment segment; segments.next(segment);) {
    AlignedText part = align(segment.text, characters.first(segment.text));
    if (segment.is_token()) {
      add_token(segment.id, std::span<const AlignedChar>(part));
      continue;
    }
    normalize(part);
    const std::string normal = to_utf8(part);
    CharacterCursor places(normal);
    AddedTokens::Cursor pieces(normalized, normal, split_special_tokens);
    for (Segment piece; pieces.next(piece);) {
      const auto chars = std::span(part).subspan(places.first(piece.text), count_characters(piece.text));
      if (piece.is_token()) {
        add_token(piece.id, std::span<const AlignedChar>(chars));
      } else {
        add_text(std::span<const AlignedChar>(chars));
      }
    }
  }
}

/// An `add_token` that appends a token with all of its characters.
inline auto append_to(std::vector<TokenSpan>& spans) {
  return [&spans](TokenId id, std::span<const AlignedChar> chars) {
    spans.push_back({id, chars.front().start, chars.back().stop});
  };
}

}  // namespace bgert
