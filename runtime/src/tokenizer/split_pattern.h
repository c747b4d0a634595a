// The regular expressions by which byte-level tokenizers cut a text into words, as functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace bgert {

/// What they are: runtime/bgert/tokenizer/split_patterns.py.
enum class SplitPattern : std::uint8_t {
  kGpt2,
  kLlama3,  ///< cl100k's: up to three digits
  kQwen2,   ///< the same with single digits
  kGpt4o,   ///< o200k's: words end where upper case begins
};

/// The pattern of a name that model folders have.
std::optional<SplitPattern> split_pattern(std::string_view name);

/// Where the word ends that begins at `p`, which is before `end`. Any bytes are safe: the words of a text are never empty
/// and together are all of it.
template <SplitPattern kPattern>
const char* word_end(const char* p, const char* end, const std::uint8_t* classes);

/// Where the ASCII letters that begin at `p` end, or eight bytes before `end` at the latest.
const char* skip_ascii_letters(const char* p, const char* end);

}  // namespace bgert
