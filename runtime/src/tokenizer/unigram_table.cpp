#include "unigram_table.h"

#include <algorithm>
#include <unordered_map>

#include "grapheme.h"
#include "unicode.h"
#include "unigram.h"
#include "utf8.h"

namespace bgert {
namespace {

constexpr char32_t kBlock = 64;

}  // namespace

UnigramTable::Action kind_of(std::string_view normalized) {
  if (normalized.empty()) return UnigramTable::kDrop;
  bool space = false, word = false;
  for (const char *p = normalized.data(), *end = p + normalized.size(); p < end;) {
    const Decoded next = decode_utf8(p, end);
    p += next.length;
    if (next.code_point == kWordMarkCodePoint) return UnigramTable::kMixed;
    ((unicode::flags(next.code_point) & unicode::kWhitespace) != 0 ? space : word) = true;
  }
  if (space) return word ? UnigramTable::kMixed : UnigramTable::kSpace;
  return normalized.size() > UnigramTable::kLongestMap ? UnigramTable::kMixed : UnigramTable::kMap;
}

UnigramTable::Entry UnigramTable::make(char32_t cp, const PrecompiledCharsmap& charsmap,
                                       const std::bitset<256>& flagged) {
  char bytes[4];
  const std::string_view raw(bytes, encode_utf8(cp, bytes));
  const auto rule = charsmap.transform(raw);
  const std::string_view normalized = rule.value_or(raw);
  const std::uint16_t properties = grapheme::properties(cp);
  std::uint32_t bits = 0;
  if (grapheme::attaches(properties)) bits |= kAttachesBit;
  if (grapheme::glues(properties, cp)) bits |= kGluesBit;
  if (std::any_of(normalized.begin(), normalized.end(),
                  [&](char c) { return flagged[static_cast<unsigned char>(c)]; })) {
    bits |= kFlaggedBit;
  }
  Action action = kind_of(normalized);
  if (action == kMap && !rule) action = kCopy;
  if (action == kMap || action == kMixed) {
    bits |= static_cast<std::uint32_t>(mapped_.size()) << 6;
    mapped_.push_back({static_cast<std::uint32_t>(pool_.size()), static_cast<std::uint32_t>(normalized.size())});
    pool_.append(normalized);
  }
  return {bits | action};
}

/// Whether the kBlock code points from `first` on, which differ in their last byte alone, get the same entry.
bool UnigramTable::uniform(char32_t first, const PrecompiledCharsmap& charsmap) {
  if (first < 0x80 || first == (kWordMarkCodePoint & ~(kBlock - 1))) return false;
  char bytes[4];
  if (charsmap.may_transform({bytes, encode_utf8(first, bytes) - 1})) return false;
  const std::uint16_t* properties = grapheme::all_properties() + first;
  const std::uint8_t* flags = unicode::all_flags() + first;
  const bool spaces = std::any_of(flags, flags + kBlock, [](auto f) { return (f & unicode::kWhitespace) != 0; });
  return !spaces && std::equal(properties + 1, properties + kBlock, properties);
}

UnigramTable::UnigramTable(const PrecompiledCharsmap& charsmap, const std::bitset<256>& flagged) {
  std::unordered_map<std::uint32_t, std::uint16_t> known;  // pages that repeat one entry are stored once
  for (char32_t number = 0; number < index_.size(); ++number) {
    Page page;
    for (char32_t low = 0; low < page.size(); ++low) {
      const char32_t cp = number << 8 | low;
      if (low % kBlock == 0 && uniform(cp, charsmap)) {
        std::fill_n(page.begin() + low, kBlock, make(cp, charsmap, flagged));
        low += kBlock - 1;
      } else {
        page[low] = make(cp, charsmap, flagged);
      }
    }
    const bool same = std::all_of(page.begin(), page.end(), [&page](Entry e) { return e == page[0]; });
    if (same) {
      const auto [found, added] = known.try_emplace(page[0].bits, static_cast<std::uint16_t>(pages_.size()));
      index_[number] = found->second;
      if (!added) continue;
    } else {
      index_[number] = static_cast<std::uint16_t>(pages_.size());
    }
    pages_.push_back(page);
  }
  // NUL is left out, as it cannot be part of a key of the cache.
  for (unsigned char byte = 1; byte < 0x80; ++byte) plain_[byte] = ascii(byte).bits == kCopy;
}

}  // namespace bgert
