#include "unicode.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <unordered_map>
#include <vector>

namespace bgert::unicode {
namespace {

struct FlagChange {
  char32_t first;
  std::uint8_t flags;
};
struct LowerCase {
  char32_t from, to;
};
struct CombiningRange {
  char32_t first, last;
  std::uint8_t value;
};

#include "unicode_tables.inc"

/// The compact arrays spread out for constant-time look-ups.
class Lookup {
 public:
  Lookup() : flags_(kEnd) {
    for (std::size_t i = 0; i < std::size(kFlagChanges); ++i) {
      const char32_t stop = i + 1 < std::size(kFlagChanges) ? kFlagChanges[i + 1].first : kEnd;
      std::fill(flags_.begin() + static_cast<std::ptrdiff_t>(kFlagChanges[i].first),
                flags_.begin() + static_cast<std::ptrdiff_t>(stop), kFlagChanges[i].flags);
    }
    for (std::size_t i = 0; i < std::size(kDecompositions);) {
      const std::size_t length = kDecompositions[i + 1];
      decompositions_.emplace(kDecompositions[i], std::u32string_view(kDecompositions + i + 2, length));
      flags_[kDecompositions[i]] |= kVaries;
      i += 2 + length;
    }
    for (char32_t cp = kHangulFirst; cp <= kHangulLast; ++cp) flags_[cp] |= kVaries;
    for (const LowerCase& entry : kLowerCases) flags_[entry.from] |= kVaries;
    flags_[kCapitalIWithDot] |= kVaries;
    for (const CombiningRange& range : kCombiningRanges) {
      for (char32_t cp = range.first; cp <= range.last; ++cp) flags_[cp] |= kVaries;
    }
  }

  const std::uint8_t* flags() const { return flags_.data(); }

  std::u32string_view decomposition(char32_t cp) const {
    const auto found = decompositions_.find(cp);
    return found == decompositions_.end() ? std::u32string_view() : found->second;
  }

 private:
  std::vector<std::uint8_t> flags_;
  std::unordered_map<char32_t, std::u32string_view> decompositions_;
};

const Lookup& lookup() {
  static const Lookup instance;
  return instance;
}

}  // namespace

const std::uint8_t* all_flags() { return lookup().flags(); }

std::u32string_view decomposition(char32_t cp) {
  return cp < kDecompositions[0] ? std::u32string_view() : lookup().decomposition(cp);
}

char32_t lower(char32_t cp) {
  if (cp == kCapitalIWithDot) return 'i';
  const auto* found = std::lower_bound(std::begin(kLowerCases), std::end(kLowerCases), cp,
                                       [](const LowerCase& entry, char32_t value) { return entry.from < value; });
  return found != std::end(kLowerCases) && found->from == cp ? found->to : cp;
}

std::uint8_t combining_class(char32_t cp) {
  const auto* found =
      std::lower_bound(std::begin(kCombiningRanges), std::end(kCombiningRanges), cp,
                       [](const CombiningRange& range, char32_t value) { return range.last < value; });
  return found != std::end(kCombiningRanges) && found->first <= cp ? found->value : std::uint8_t{0};
}

}  // namespace bgert::unicode
