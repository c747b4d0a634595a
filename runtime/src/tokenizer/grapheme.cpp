#include "grapheme.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "utf8.h"

namespace bgert::grapheme {
namespace {

struct Change {
  char32_t first;
  std::uint16_t properties;
};

#include "grapheme_tables.inc"

constexpr char32_t kEnd = 0x110000;
constexpr char32_t kZeroWidthJoiner = 0x200D;

/// Decides between neighbours; what stands further left is kept as state.
class Boundary {
 public:
  explicit Boundary(char32_t first) { take(first, grapheme::properties(first)); }

  /// Whether `cp` belongs to the cluster; if so it is taken into it.
  bool joins(char32_t cp) {
    const std::uint16_t next = grapheme::properties(cp);
    const bool joined = follows(cp, next);
    if (joined) take(cp, next);
    return joined;
  }

 private:
  // Pairs of regional indicators are left out: their clusters have 8 bytes, where boundaries make no difference.
  bool follows(char32_t cp, std::uint16_t next) const {
    if (last_ == '\r' && cp == '\n') return true;
    if (((before_ | next) & kControl) != 0) return false;
    if ((next & kAttaches) != 0 || (before_ & kPrepend) != 0) return true;
    if ((next & (kLeading | kVowel | kTrailing)) != 0) {
      const bool syllable = (next & kSyllable) != 0;
      if ((before_ & kLeading) != 0 && ((next & (kLeading | kVowel)) != 0 || syllable)) return true;
      if ((before_ & kVowel) != 0 && (next & (kVowel | kTrailing)) != 0 && !syllable) return true;
      if ((before_ & kTrailing) != 0 && (next & kTrailing) != 0 && !syllable) return true;
    }
    if ((next & kConsonant) != 0 && linked_) return true;
    return (next & kPictograph) != 0 && joiner_;
  }

  void take(char32_t cp, std::uint16_t now) {
    joiner_ = cp == kZeroWidthJoiner && pictograph_;
    pictograph_ = (now & kPictograph) != 0 || (pictograph_ && (now & kAfterPictograph) != 0);
    if ((now & kConsonant) != 0) {
      conjunct_ = true;
      linked_ = false;
    } else if ((now & (kLinker | kInConjunct)) == 0) {
      conjunct_ = linked_ = false;
    } else if ((now & kLinker) != 0) {
      linked_ = conjunct_;
    }
    last_ = cp;
    before_ = now;
  }

  char32_t last_ = 0;
  std::uint16_t before_ = 0;
  bool pictograph_ = false;  // the cluster ends with a pictograph and what may stand after it
  bool joiner_ = false;      // ... and ZWJ
  bool conjunct_ = false;    // it ends with a consonant and what may stand after it
  bool linked_ = false;      // ... with a linker among it
};

}  // namespace

const std::uint16_t* all_properties() {
  static const std::vector<std::uint16_t> spread = [] {
    std::vector<std::uint16_t> result(kEnd);
    for (std::size_t i = 0; i < std::size(kChanges); ++i) {
      const char32_t stop = i + 1 < std::size(kChanges) ? kChanges[i + 1].first : kEnd;
      std::fill(result.begin() + static_cast<std::ptrdiff_t>(kChanges[i].first),
                result.begin() + static_cast<std::ptrdiff_t>(stop), kChanges[i].properties);
    }
    return result;
  }();
  return spread.data();
}

std::size_t cluster_size(const char* p, const char* end) {
  const char* next = p;
  const Decoded first = decode_utf8(next, end);
  next += first.length;
  for (Boundary boundary(first.code_point); next < end;) {
    const Decoded decoded = decode_utf8(next, end);
    if (!boundary.joins(decoded.code_point)) break;
    next += decoded.length;
  }
  return static_cast<std::size_t>(next - p);
}

}  // namespace bgert::grapheme
