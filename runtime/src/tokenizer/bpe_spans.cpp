// Byte-level BPE tokens with their offsets: NFC, words and merges one after the other.
#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "aligned_text.h"
#include "bpe_model.h"
#include "byte_level.h"
#include "nfc.h"
#include "span_walk.h"
#include "unicode.h"
#include "utf8.h"

namespace bgert {
namespace {

bool is_space(const AlignedChar& c) { return (unicode::flags(c.code_point) & unicode::kWhitespace) != 0; }

/// What HF's `trim_offsets` takes for a space: in a token of the model spaces alone are written as kSpaceLetter.
bool is_trimmed(const AlignedChar& c, bool added) {
  return added ? is_space(c) || c.code_point == kSpaceLetter : c.code_point == ' ';
}

}  // namespace

void BpeModel::encode_spans(std::string_view text, const SpanOptions& options, std::vector<TokenSpan>& spans) const {
  walk_spans(
      text, raw_, normalized_, options.split_special_tokens,
      [&](TokenId id, Chars chars) { add_span(id, chars, true, options, spans); },
      [this](AlignedText& part) {
        if (options_.nfc) normalize_nfc(part);
      },
      [&](Chars part) {
        if (!options_.add_prefix_space || part.empty() || part.front().code_point == ' ') {
          add_words(part, options, spans);
          return;
        }
        AlignedText prefixed{{' ', part.front().start, part.front().stop}};
        prefixed.insert(prefixed.end(), part.begin(), part.end());
        add_words(prefixed, options, spans);
      });
}

const char* BpeModel::end_of_word(const char* p, const char* end) const {
  switch (options_.pattern) {
    case SplitPattern::kGpt2:
      return word_end<SplitPattern::kGpt2>(p, end, classes_);
    case SplitPattern::kLlama3:
      return word_end<SplitPattern::kLlama3>(p, end, classes_);
    case SplitPattern::kQwen2:
      return word_end<SplitPattern::kQwen2>(p, end, classes_);
    case SplitPattern::kGpt4o:
      break;
  }
  return word_end<SplitPattern::kGpt4o>(p, end, classes_);
}

void BpeModel::add_words(Chars text, const SpanOptions& options, std::vector<TokenSpan>& spans) const {
  const std::string bytes = to_utf8(text);
  std::vector<std::uint32_t> char_of_byte;
  char_of_byte.reserve(bytes.size());
  for (std::uint32_t i = 0; i < text.size(); ++i) {
    char letter[4];
    char_of_byte.insert(char_of_byte.end(), encode_utf8(text[i].code_point, letter), i);
  }
  BpeBuffers buffers;
  std::vector<TokenId> ids;
  std::size_t at = 0;
  for (const char *p = bytes.data(), *end = p + bytes.size(); p < end;) {
    const char* const stop = end_of_word(p, end);
    ids.clear();
    bpe_.segment({p, stop}, buffers, ids);
    for (const TokenId id : ids) {
      const std::size_t next = at + bpe_.length(id);
      const std::size_t first = char_of_byte[at];
      add_span(id, text.subspan(first, char_of_byte[next - 1] - first + 1), false, options, spans);
      at = next;
    }
    p = stop;
  }
}

/// Appends a token of these characters, of which there is at least one. Those of a token of the model may be in part
/// those of its neighbours, where a character has several bytes.
void BpeModel::add_span(TokenId id, Chars chars, bool added, const SpanOptions& options,
                        std::vector<TokenSpan>& spans) const {
  TokenSpan span{id, chars.front().start, chars.back().stop};
  if (!options.as_hf) {
    const auto first = std::find_if_not(chars.begin(), chars.end(), is_space);
    const auto last = std::find_if_not(chars.rbegin(), chars.rend(), is_space);
    if (first == chars.end()) {
      span.stop = span.start;
    } else {
      span.start = first->start;
      span.stop = last->stop;
    }
  } else if (options_.trim_offsets) {
    const auto trimmed = [added](const AlignedChar& c) { return is_trimmed(c, added); };
    auto leading = std::find_if_not(chars.begin(), chars.end(), trimmed) - chars.begin();
    const auto trailing = static_cast<std::uint32_t>(std::find_if_not(chars.rbegin(), chars.rend(), trimmed) - chars.rbegin());
    // The prefix space is not of the text; HF takes any single one at its beginning for it.
    if (leading == 1 && options_.keep_first_space && (spans.empty() || span.start == 0)) leading = 0;
    span.start = std::min(span.start + static_cast<std::uint32_t>(leading), span.stop);
    if (trailing > 0 && span.stop >= trailing) span.stop = std::max(span.stop - trailing, span.start);
  }
  spans.push_back(span);
}

}  // namespace bgert
