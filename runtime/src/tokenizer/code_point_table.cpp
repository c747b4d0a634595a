#include "code_point_table.h"

#include <algorithm>
#include <stdexcept>

#include "unicode.h"
#include "utf8.h"

namespace bgert {
namespace {

using Entry = CodePointTable::Entry;

Entry make(CodePointTable::Action action, std::uint32_t payload = 0) { return {payload << 3 | action}; }

/// Whether a code point's decomposition has a character that stays and can change places with another.
bool needs_order(char32_t cp) {
  const std::u32string_view parts = unicode::decomposition(cp);
  const std::u32string_view all = parts.empty() ? std::u32string_view(&cp, 1) : parts;
  return std::any_of(all.begin(), all.end(), [](char32_t c) {
    return unicode::combining_class(c) != 0 && (unicode::flags(c) & unicode::kMark) == 0;
  });
}

}  // namespace

CodePointTable::CodePointTable(const BertNormalizer* normalizer, const WordPiece& wordpiece) {
  std::unordered_map<std::uint32_t, std::uint16_t> uniform;  // pages that repeat one entry are stored once
  for (char32_t number = 0; number < index_.size(); ++number) {
    Page page;
    const std::uint8_t* flags = unicode::all_flags() + (number << 8);
    constexpr auto kOwnEntry = unicode::kVaries | unicode::kIdeograph | unicode::kPunctuation;
    const bool alike = (flags[0] & kOwnEntry) == 0 && std::equal(flags + 1, flags + page.size(), flags);
    for (char32_t low = 0; low < page.size(); ++low) {
      const char32_t cp = number << 8 | low;
      if (alike && low > 0) {
        page[low] = page[0];
        continue;
      }
      page[low] = normalizer != nullptr ? normalized(cp, *normalizer, wordpiece) : plain(cp, wordpiece);
    }
    const bool same = std::all_of(page.begin(), page.end(), [&page](Entry e) { return e == page[0]; });
    if (same) {
      const auto found = uniform.find(page[0].bits);
      if (found != uniform.end()) {
        index_[number] = found->second;
        continue;
      }
      uniform.emplace(page[0].bits, static_cast<std::uint16_t>(pages_.size()));
    }
    index_[number] = static_cast<std::uint16_t>(pages_.size());
    pages_.push_back(page);
  }
  known_.clear();
}

Entry CodePointTable::plain(char32_t cp, const WordPiece& wordpiece) const {
  const auto flags = unicode::flags(cp);
  if ((flags & unicode::kWhitespace) != 0) return make(kBreak);
  if ((flags & unicode::kPunctuation) == 0) return make(kCopy);
  return make(kWord, static_cast<std::uint32_t>(wordpiece.character(cp)));
}

Entry CodePointTable::normalized(char32_t cp, const BertNormalizer& normalizer, const WordPiece& wordpiece) {
  const auto flags = unicode::flags(cp);
  const bool strip = normalizer.strips_accents();
  if (normalizer.clean_text && (flags & unicode::kDropped) != 0) return make(kDrop);
  if (normalizer.clean_text && (flags & unicode::kSpaced) != 0) return make(kBreak);
  if (strip && unicode::is_hangul(cp)) return make(kHangul);
  const bool varies = (flags & unicode::kVaries) != 0;
  if (strip && varies && needs_order(cp)) return make(kOrder);

  // Normalise without the spaces around an ideograph: the action kWord stands for them.
  BertNormalizer steps = normalizer;
  steps.clean_text = steps.handle_chinese_chars = false;
  std::string bytes;
  if (!varies && (flags & unicode::kMark) == 0) {
    append_utf8(cp, bytes);
  } else {
    char raw[4];
    steps.normalize({raw, encode_utf8(cp, raw)}, bytes);
  }
  const bool ideograph = normalizer.handle_chinese_chars && (flags & unicode::kIdeograph) != 0;
  if (bytes.empty()) return make(kDrop);
  const char* end = bytes.data() + bytes.size();
  const Decoded first = decode_utf8(bytes.data(), end);
  if (first.length == bytes.size()) {
    if (ideograph) return make(kWord, static_cast<std::uint32_t>(wordpiece.character(first.code_point)));
    const Entry entry = plain(first.code_point, wordpiece);
    return entry.action() == kCopy && first.code_point != cp ? map(bytes, 1) : entry;
  }
  std::size_t chars = 0;
  for (const char* p = bytes.data(); p < end; ++chars) {
    const Decoded next = decode_utf8(p, end);
    if (ideograph || plain(next.code_point, wordpiece).action() != kCopy) return make(kOrder);
    p += next.length;
  }
  return map(bytes, chars);
}

Entry CodePointTable::map(std::string_view bytes, std::size_t chars) {
  const auto [found, added] = known_.try_emplace(std::string(bytes));
  if (added) {
    if (pool_.size() >= 1 << 21 || bytes.size() > 31 || chars > 7) throw std::length_error("a mapping is too long");
    const std::size_t payload = pool_.size() << 8 | bytes.size() << 3 | chars;
    found->second = make(kMap, static_cast<std::uint32_t>(payload));
    pool_.append(bytes);
  }
  return found->second;
}

}  // namespace bgert
