#include "split_pattern.h"

#include <bit>
#include <cstddef>

#include "char_classes.h"
#include "utf8.h"
#include "word_key.h"

namespace bgert {
namespace {

/// A character of a text; there is none at its end.
struct Char {
  std::uint8_t classes = 0;
  std::uint8_t length = 0;  ///< bytes
  char byte = 0;            ///< the first of them

  bool exists() const { return length != 0; }
  bool is(int classes_wanted) const { return (classes & classes_wanted) != 0; }
  bool line_break() const { return byte == '\n' || byte == '\r'; }
  bool other() const { return exists() && !is(kLetter | kNumber | kSpace); }
  // The two overlapping classes of kGpt4o: letters without case and marks are in both.
  bool may_be_upper() const { return is(kUpper | kMark) || (is(kLetter) && !is(kLower)); }
  bool may_be_lower() const { return is(kLower | kMark) || (is(kLetter) && !is(kUpper)); }
};

/// The rest of a text as a regular expression meets it.
class Scan {
 public:
  Scan(const char* end, const std::uint8_t* classes) : end_(end), classes_(classes) {}

  Char at(const char* p) const {
    if (p >= end_) return {};
    const auto byte = static_cast<unsigned char>(*p);
    if (byte < 0x80) return {classes_[byte], 1, *p};
    const Decoded next = decode_utf8(p, end_);
    return {classes_[next.code_point], static_cast<std::uint8_t>(next.length), *p};
  }

  template <typename Wanted>
  const char* skip(const char* p, const Wanted& wanted) const {
    for (Char next = at(p); next.exists() && wanted(next); next = at(p)) p += next.length;
    return p;
  }

  const char* letters(const char* p) const {
    return skip(skip_ascii_letters(p, end_), [](const Char& c) { return c.is(kLetter); });
  }

  const char* numbers(const char* p) const {
    return skip(p, [](const Char& c) { return c.is(kNumber); });
  }

  const char* others(const char* p) const {
    return skip(p, [](const Char& c) { return c.other(); });
  }

  const char* line_breaks(const char* p, bool slashes) const {
    while (p < end_ && (*p == '\n' || *p == '\r' || (slashes && *p == '/'))) ++p;
    return p;
  }

  /// 's 't 're 've 'm 'll 'd at `p`: where it ends, or `p`.
  template <bool kAnyCase>
  const char* contraction(const char* p) const {
    if (end_ - p < 2 || *p != '\'') return p;
    const auto letter = [p](std::ptrdiff_t i) { return kAnyCase && p[i] >= 'A' && p[i] <= 'Z' ? p[i] | 0x20 : p[i]; };
    const int first = letter(1);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return p + 2;
    if (end_ - p < 3) return p;
    if (kAnyCase && p[1] == '\xC5' && p[2] == '\xBF') return p + 3;  // a long s
    const int second = letter(2);
    if ((first == 'r' || first == 'v') && second == 'e') return p + 3;
    return first == 'l' && second == 'l' ? p + 3 : p;
  }

  /// `\s+(?!\S)|\s+` where `p` has whitespace: all of it, but for the last character where something follows.
  const char* spaces(const char* p) const {
    const char* before = p;  // the last character
    const char* stop = p;
    for (Char next = at(p); next.is(kSpace); next = at(stop)) {
      before = stop;
      stop += next.length;
    }
    return stop == end_ || before == p ? stop : before;
  }

  /// The same, but for whitespace with line breaks: up to the last of them.
  const char* spaces_or_lines(const char* p) const {
    const char* line = p;
    for (const char* stop = p;;) {
      const Char next = at(stop);
      if (!next.is(kSpace)) break;
      stop += next.length;
      if (next.line_break()) line = stop;
    }
    return line == p ? spaces(p) : line;
  }

  /// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+` at `p`: where it ends, or `p`.
  const char* capitalised(const char* p) const {
    const char* lower = p;  // where the last character ends that may be lower case
    const char* stop = p;
    for (Char next = at(p); next.may_be_upper(); next = at(stop)) {
      stop += next.length;
      if (next.may_be_lower()) lower = stop;
    }
    const char* const more = skip(stop, [](const Char& c) { return c.may_be_lower(); });
    return more != stop ? more : lower;
  }

  const char* capitals(const char* p) const {
    return skip(p, [](const Char& c) { return c.may_be_upper(); });
  }

 private:
  const char* end_;
  const std::uint8_t* classes_;
};

const char* gpt2(const char* p, const Scan& scan) {
  if (const char* const stop = scan.contraction<false>(p); stop != p) return stop;
  const Char first = scan.at(p);
  const char* from = p;
  Char next = first;
  if (*p == ' ') next = scan.at(++from);
  if (next.is(kLetter)) return scan.letters(from);
  if (next.is(kNumber)) return scan.numbers(from);
  if (next.other()) return scan.others(from);
  return scan.spaces(p);
}

/// What all later expressions have behind their words: numbers, signs with what ends a line, whitespace.
const char* no_word(const char* p, const Char& first, const Scan& scan, int digits, bool slashes) {
  if (first.is(kNumber)) {
    const char* stop = p;
    for (Char next = first; digits > 0 && next.is(kNumber); next = scan.at(stop), --digits) stop += next.length;
    return stop;
  }
  const char* const from = *p == ' ' ? p + 1 : p;
  if (scan.at(from).other()) return scan.line_breaks(scan.others(from), slashes);
  return scan.spaces_or_lines(p);
}

const char* llama3(const char* p, const Scan& scan, int digits) {
  if (const char* const stop = scan.contraction<true>(p); stop != p) return stop;
  const Char first = scan.at(p);
  if (first.is(kLetter)) return scan.letters(p);
  if (!first.is(kNumber) && !first.line_break() && scan.at(p + first.length).is(kLetter)) {
    return scan.letters(p + first.length);
  }
  return no_word(p, first, scan, digits, false);
}

const char* gpt4o(const char* p, const Scan& scan) {
  const Char first = scan.at(p);
  const bool lead = !first.is(kLetter | kNumber) && !first.line_break();  // one character may stand before a word
  const char* const after = p + first.length;
  const char* stop = lead ? scan.capitalised(after) : after;
  if (stop == after) stop = scan.capitalised(p);
  if (stop == p && lead) stop = scan.capitals(after) == after ? p : scan.capitals(after);
  if (stop == p) stop = scan.capitals(p);
  return stop == p ? no_word(p, first, scan, 3, true) : scan.contraction<true>(stop);
}

}  // namespace

const char* skip_ascii_letters(const char* p, const char* end) {
  constexpr std::uint64_t kOnes = 0x0101010101010101ULL;
  constexpr std::uint64_t kHigh = 0x80 * kOnes;
  while (end - p >= 8) {
    const std::uint64_t x = load_eight(p);
    const std::uint64_t folded = (x & ~kHigh) | 0x20 * kOnes;
    const std::uint64_t letter = (folded + (0x80 - 'a') * kOnes) & ~(folded + (0x80 - ('z' + 1)) * kOnes) & ~x & kHigh;
    const std::uint64_t other = letter ^ kHigh;
    if (other != 0) return p + std::countr_zero(other) / 8;
    p += 8;
  }
  return p;
}

std::optional<SplitPattern> split_pattern(std::string_view name) {
  if (name == "gpt2") return SplitPattern::kGpt2;
  if (name == "llama3") return SplitPattern::kLlama3;
  if (name == "qwen2") return SplitPattern::kQwen2;
  if (name == "gpt4o") return SplitPattern::kGpt4o;
  return std::nullopt;
}

template <SplitPattern kPattern>
const char* word_end(const char* p, const char* end, const std::uint8_t* classes) {
  const Scan scan(end, classes);
  if constexpr (kPattern == SplitPattern::kGpt2) return gpt2(p, scan);
  if constexpr (kPattern == SplitPattern::kLlama3) return llama3(p, scan, 3);
  if constexpr (kPattern == SplitPattern::kQwen2) return llama3(p, scan, 1);
  if constexpr (kPattern == SplitPattern::kGpt4o) return gpt4o(p, scan);
}

template const char* word_end<SplitPattern::kGpt2>(const char*, const char*, const std::uint8_t*);
template const char* word_end<SplitPattern::kLlama3>(const char*, const char*, const std::uint8_t*);
template const char* word_end<SplitPattern::kQwen2>(const char*, const char*, const std::uint8_t*);
template const char* word_end<SplitPattern::kGpt4o>(const char*, const char*, const std::uint8_t*);

}  // namespace bgert
