#include "bert_normalizer.h"

#include <algorithm>
#include <cstddef>
#include <string>

#include "unicode.h"
#include "utf8.h"

namespace bgert {
namespace {

void decompose(char32_t cp, std::u32string& out) {
  if (unicode::is_hangul(cp)) {
    const unicode::Jamo jamo = unicode::decompose_hangul(cp);
    out.append(jamo.parts, static_cast<std::size_t>(jamo.count));
    return;
  }
  const std::u32string_view parts = unicode::decomposition(cp);
  if (parts.empty()) {
    out.push_back(cp);
  } else {
    out.append(parts);
  }
}

/// Canonical decomposition with canonical order.
std::u32string nfd(const std::u32string& text) {
  std::u32string out;
  out.reserve(text.size() + text.size() / 2);
  for (const char32_t cp : text) decompose(cp, out);
  const auto by_class = [](char32_t a, char32_t b) {
    return unicode::combining_class(a) < unicode::combining_class(b);
  };
  const auto is_mark = [](char32_t cp) { return unicode::combining_class(cp) != 0; };
  for (auto begin = std::find_if(out.begin(), out.end(), is_mark); begin != out.end();) {
    const auto end = std::find_if_not(begin, out.end(), is_mark);
    std::stable_sort(begin, end, by_class);
    begin = std::find_if(end, out.end(), is_mark);
  }
  return out;
}

}  // namespace

void BertNormalizer::normalize(std::string_view text, std::string& out) const {
  std::u32string cleaned;
  cleaned.reserve(text.size());
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    const Decoded next = decode_utf8(p, end);
    p += next.length;
    const auto flags = unicode::flags(next.code_point);
    if (clean_text && (flags & unicode::kDropped) != 0) continue;
    if (clean_text && (flags & unicode::kSpaced) != 0) {
      cleaned.push_back(' ');
    } else if (handle_chinese_chars && (flags & unicode::kIdeograph) != 0) {
      cleaned.append({U' ', next.code_point, U' '});
    } else {
      cleaned.push_back(next.code_point);
    }
  }
  if (strips_accents()) cleaned = nfd(cleaned);
  for (const char32_t cp : cleaned) {
    if (strips_accents() && (unicode::flags(cp) & unicode::kMark) != 0) continue;
    append_utf8(lowercase ? unicode::lower(cp) : cp, out);
    if (lowercase && cp == unicode::kCapitalIWithDot) append_utf8(unicode::kCombiningDot, out);
  }
}

}  // namespace bgert
