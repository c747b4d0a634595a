// Properties of code points as the Unicode tables inside HF tokenizers have them.
#pragma once

#include <cstdint>
#include <string_view>

namespace bgert::unicode {

enum Flag : std::uint8_t {
  kDropped = 1,      ///< removed by clean_text
  kSpaced = 2,       ///< replaced with a space by clean_text
  kIdeograph = 4,    ///< what BERT calls a Chinese character
  kMark = 8,         ///< Mn: removed when accents are stripped
  kPunctuation = 16,
  kWhitespace = 32,
  kWord = 64,        ///< matched by the regular expression \w
  kVaries = 128,     ///< has a decomposition, a lower case or a combining class
};

constexpr char32_t kHangulFirst = 0xAC00;
constexpr char32_t kHangulLast = 0xD7A3;
constexpr bool is_hangul(char32_t cp) { return cp >= kHangulFirst && cp <= kHangulLast; }

constexpr char32_t kEnd = 0x110000;

/// Bits of Flag for every code point below kEnd.
const std::uint8_t* all_flags();

/// Bits of Flag.
inline std::uint8_t flags(char32_t cp) { return cp < kEnd ? all_flags()[cp] : std::uint8_t{0}; }

/// Full canonical decomposition, empty if the code point is its own; Hangul syllables are left to `decompose_hangul`.
std::u32string_view decomposition(char32_t cp);

struct Jamo {
  char32_t parts[3];
  int count;
};
constexpr Jamo decompose_hangul(char32_t cp) {
  const char32_t index = cp - kHangulFirst;
  const char32_t trailing = index % 28;
  return {{0x1100 + index / 588, 0x1161 + index % 588 / 28, 0x11A7 + trailing}, trailing != 0 ? 3 : 2};
}

/// The first code point of the lower case; only kCapitalIWithDot has a second, kCombiningDot.
char32_t lower(char32_t cp);
constexpr char32_t kCapitalIWithDot = 0x130;
constexpr char32_t kCombiningDot = 0x307;

/// Canonical combining class.
std::uint8_t combining_class(char32_t cp);

}  // namespace bgert::unicode
