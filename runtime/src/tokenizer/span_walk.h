// The way through a text that both models' offsets take: added tokens, normal form, added tokens in it, the rest.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "added_tokens.h"
#include "aligned_text.h"
#include "text_model.h"

namespace bgert {

/// Appends the tokens of `text`: `normalize(AlignedText&)` brings what lies between the `raw` tokens into normal form,
/// and `add_text(span of AlignedChar)` appends the tokens of what then lies between the `normalized` ones.
template <typename Normalize, typename AddText>
void walk_spans(std::string_view text, const AddedTokens& raw, const AddedTokens& normalized, bool split_special_tokens,
                std::vector<TokenSpan>& spans, Normalize normalize, AddText add_text) {
  CharacterCursor characters(text);
  AddedTokens::Cursor segments(raw, text, split_special_tokens);
  for (Segment segment; segments.next(segment);) {
    AlignedText part = align(segment.text, characters.first(segment.text));
    if (segment.is_token()) {
      spans.push_back({segment.id, part.front().start, part.back().stop});
      continue;
    }
    normalize(part);
    const std::string normal = to_utf8(part);
    CharacterCursor places(normal);
    AddedTokens::Cursor pieces(normalized, normal, split_special_tokens);
    for (Segment piece; pieces.next(piece);) {
      const auto chars = std::span(part).subspan(places.first(piece.text), count_characters(piece.text));
      if (piece.is_token()) {
        spans.push_back({piece.id, chars.front().start, chars.back().stop});
      } else {
        add_text(std::span<const AlignedChar>(chars));
      }
    }
  }
}

}  // namespace bgert
