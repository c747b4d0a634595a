#include "bert_normalizer.h"

#include <string>

#include "nfd.h"
#include "unicode.h"
#include "utf8.h"

namespace bgert {
namespace {

/// Canonical decomposition with canonical order.
std::u32string nfd(const std::u32string& text) {
  std::u32string out;
  out.reserve(text.size() + text.size() / 2);
  for (const char32_t cp : text) decompose(cp, [&out](char32_t part, bool) { out.push_back(part); });
  order_marks(out, [](char32_t cp) { return cp; });
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
