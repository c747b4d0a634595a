// A text that is being normalised and still knows which characters of the original each of its own comes from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bgert {

/// A character of the normalised text and the range of the original's characters that it stands for.
struct AlignedChar {
  char32_t code_point;
  std::uint32_t start, stop;
};

using AlignedText = std::vector<AlignedChar>;

/// A character of the result of a transformation, as HF's `NormalizedString::transform` takes it.
struct Change {
  char32_t code_point;
  std::ptrdiff_t change;  ///< 1: inserted; 0: replaces the next character; -n: the same, and the n after it are removed
};

/// The characters of a text, the first of which is number `first` of the original.
AlignedText align(std::string_view text, std::size_t first);

/// Replaces all of `text`. What is inserted shares the origin of what stands before it. `removed` characters at the
/// beginning have nothing that replaces them.
void transform(AlignedText& text, std::span<const Change> changes, std::size_t removed = 0);

std::string to_utf8(std::span<const AlignedChar> text);

/// How many characters UTF-8 text has.
std::size_t count_characters(std::string_view text);

/// Numbers the characters of a text that is gone through in parts. A part may begin before the end of the last one:
/// a token that strips whitespace may take some from a token that begins with it.
class CharacterCursor {
 public:
  explicit CharacterCursor(std::string_view text) : at_(text.data()) {}

  /// The number of the first character of `part`, which is part of the text.
  std::size_t first(std::string_view part);

 private:
  const char* at_;
  std::size_t number_ = 0;  // of the character at `at_`
};

}  // namespace bgert
