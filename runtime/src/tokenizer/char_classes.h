// Classes of characters as the regular expressions of byte-level tokenizers have them.
#pragma once

#include <cstdint>

namespace bgert {

enum CharClass : std::uint8_t {
  kLetter = 1,
  kNumber = 2,
  kSpace = 4,
  kUpper = 8,   ///< a letter of upper or title case
  kLower = 16,  ///< a letter of lower case
  kMark = 32,
};

/// Bits of CharClass for every code point below 0x110000.
const std::uint8_t* char_classes();

}  // namespace bgert
