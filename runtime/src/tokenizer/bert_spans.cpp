// WordPiece tokens with their offsets: normaliser, pre-tokeniser and model one after the other.
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "added_tokens.h"
#include "aligned_text.h"
#include "decoder.h"
#include "nfd.h"
#include "span_walk.h"
#include "unicode.h"
#include "utf8.h"
#include "wordpiece_model.h"

namespace bgert {
namespace {

bool has(char32_t cp, unicode::Flag flag) { return (unicode::flags(cp) & flag) != 0; }

void nfd(AlignedText& text) {
  std::vector<Change> changes;
  changes.reserve(text.size());
  for (const AlignedChar& c : text) {
    decompose(c.code_point, [&changes](char32_t part, bool first) { changes.push_back({part, first ? 0 : 1}); });
  }
  // A mark that moves takes along whether it was inserted, and the origin of the place where it comes to stand.
  order_marks(changes, [](const Change& change) { return change.code_point; });
  transform(text, changes);
}

}  // namespace

void BertNormalizer::normalize(AlignedText& text) const {
  AlignedText out;
  out.reserve(text.size());
  for (AlignedChar c : text) {
    if (clean_text && has(c.code_point, unicode::kDropped)) continue;
    if (clean_text && has(c.code_point, unicode::kSpaced)) c.code_point = ' ';
    const bool apart = handle_chinese_chars && has(c.code_point, unicode::kIdeograph);
    if (apart) out.push_back({' ', c.start, c.stop});
    out.push_back(c);
    if (apart) out.push_back({' ', c.start, c.stop});
  }
  if (strips_accents()) {
    nfd(out);
    std::erase_if(out, [](const AlignedChar& c) { return has(c.code_point, unicode::kMark); });
  }
  text.clear();
  for (AlignedChar c : out) {
    const bool dotted = lowercase && c.code_point == unicode::kCapitalIWithDot;
    if (lowercase) c.code_point = unicode::lower(c.code_point);
    text.push_back(c);
    if (dotted) text.push_back({unicode::kCombiningDot, c.start, c.stop});
  }
}

void WordPieceModel::encode_spans(std::string_view text, const SpanOptions& options,
                                  std::vector<TokenSpan>& spans) const {
  walk_spans(
      text, raw_, normalized_, options.split_special_tokens, append_to(spans),
      [this](AlignedText& part) { normalizer_.normalize(part); },
      [&](std::span<const AlignedChar> part) { add_words(part, spans); });
}

/// Splits text in normal form at whitespace and around punctuation.
void WordPieceModel::add_words(std::span<const AlignedChar> text, std::vector<TokenSpan>& spans) const {
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool space = has(text[i].code_point, unicode::kWhitespace);
    if (!space && !has(text[i].code_point, unicode::kPunctuation)) continue;
    add_word(text.subspan(begin, i - begin), spans);
    if (!space) add_word(text.subspan(i, 1), spans);
    begin = i + 1;
  }
  add_word(text.subspan(begin), spans);
}

void WordPieceModel::add_word(std::span<const AlignedChar> word, std::vector<TokenSpan>& spans) const {
  if (word.empty()) return;
  std::vector<TokenId> ids;
  if (word.size() <= wordpiece_.max_chars()) {
    wordpiece_.segment(to_utf8(word), ids);
  } else {
    ids.push_back(wordpiece_.unk_id());
  }
  if (ids.size() == 1) {  // the whole word, or the unknown token in its place
    spans.push_back({ids.front(), word.front().start, word.back().stop});
    return;
  }
  std::span<const AlignedChar> rest = word;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    std::string_view piece = vocabulary_.piece(ids[i]);
    if (i != 0) piece.remove_prefix(prefix_.size());
    const auto chars = rest.first(count_characters(piece));
    rest = rest.subspan(chars.size());
    spans.push_back({ids[i], chars.front().start, chars.back().stop});
  }
}

std::string WordPieceModel::join(std::span<const std::string_view> tokens) const {
  return join_wordpieces(tokens, prefix_);
}

}  // namespace bgert
