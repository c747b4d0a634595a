#include "nfc.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <unordered_map>
#include <vector>

#include "byte_level_tables.h"
#include "nfd.h"
#include "unicode.h"
#include "utf8.h"
#include "word_key.h"

namespace bgert {
namespace {

constexpr char32_t kLeading = 0x1100, kVowel = 0x1161, kTrailing = 0x11A7;
constexpr char32_t kVowels = 21, kTrailings = 28;

/// What is known of a code point before its neighbours are looked at.
enum : std::uint8_t {
  kChanges = 0xFF,       // NFC replaces it, or may join it to what stands before it
  kMostClass = 0xFE,     // lower values are canonical combining classes
};

class Compositions {
 public:
  Compositions() : marks_(unicode::kEnd) {
    for (char32_t cp = 0; cp < unicode::kEnd; ++cp) {
      if ((unicode::flags(cp) & unicode::kVaries) == 0 || unicode::is_hangul(cp)) continue;
      marks_[cp] = std::min<std::uint8_t>(unicode::combining_class(cp), kMostClass);
      if (!unicode::decomposition(cp).empty()) marks_[cp] = kChanges;
    }
    for (const Composition& entry : compositions()) {
      made_.emplace(key(entry.first, entry.second), entry.made);
      marks_[entry.made] = 0;  // composed again
    }
    for (const Composition& entry : compositions()) marks_[entry.second] = kChanges;
    for (char32_t cp = kVowel; cp < kTrailing + kTrailings; ++cp) marks_[cp] = kChanges;
  }

  std::uint8_t mark(char32_t cp) const { return marks_[cp]; }

  std::optional<char32_t> compose(char32_t first, char32_t second) const {
    if (first - kLeading < 19 && second - kVowel < kVowels) {
      return unicode::kHangulFirst + ((first - kLeading) * kVowels + (second - kVowel)) * kTrailings;
    }
    if (unicode::is_hangul(first) && (first - unicode::kHangulFirst) % kTrailings == 0 && second > kTrailing &&
        second < kTrailing + kTrailings) {
      return first + (second - kTrailing);
    }
    const auto found = made_.find(key(first, second));
    return found == made_.end() ? std::nullopt : std::make_optional(found->second);
  }

 private:
  static std::uint64_t key(char32_t first, char32_t second) { return std::uint64_t{first} << 32 | second; }

  std::vector<std::uint8_t> marks_;
  std::unordered_map<std::uint64_t, char32_t> made_;
};

const Compositions& tables() {
  static const Compositions instance;
  return instance;
}

/// Joins decomposed and ordered characters. One that takes in another stands for the origins of both.
void compose(std::vector<Change>& text) {
  std::vector<Change> out;
  out.reserve(text.size());
  std::optional<std::size_t> starter;  // in `out`
  int last = -1;                       // class of what stands last behind the starter, -1 if nothing does
  for (const Change& next : text) {
    const int combining = unicode::combining_class(next.code_point);
    if (starter && last < combining) {
      if (const auto made = tables().compose(out[*starter].code_point, next.code_point)) {
        out[*starter] = {*made, out[*starter].change + next.change - 1};
        continue;
      }
    }
    if (combining == 0) {
      starter = out.size();
      last = -1;
    } else if (starter) {
      last = combining;
    }
    out.push_back(next);
  }
  text = std::move(out);
}

/// The normal form of the characters that `decode` hands to its argument, and what each of it replaces.
template <typename ForEach>
std::vector<Change> changes_of(std::size_t size, const ForEach& for_each) {
  std::vector<Change> changes;
  changes.reserve(size);
  for_each([&changes](char32_t cp) {
    decompose(cp, [&changes](char32_t part, bool first) { changes.push_back({part, first ? 0 : 1}); });
  });
  order_marks(changes, [](const Change& change) { return change.code_point; });
  compose(changes);
  return changes;
}

}  // namespace

bool is_quickly_nfc(std::string_view text) {
  const Compositions& known = tables();
  std::uint8_t last = 0;
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    if (end - p >= 8 && (load_eight(p) & 0x8080808080808080ULL) == 0) {
      last = 0;
      p += 8;
      continue;
    }
    const Decoded next = decode_utf8(p, end);
    const std::uint8_t mark = known.mark(next.code_point);
    if (mark == kChanges || (mark != 0 && mark < last)) return false;
    last = mark;
    p += next.length;
  }
  return true;
}

void append_nfc(std::string_view text, std::string& out) {
  const auto changes = changes_of(text.size(), [text](const auto& take) {
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
      const Decoded next = decode_utf8(p, end);
      take(next.code_point);
      p += next.length;
    }
  });
  for (const Change& change : changes) append_utf8(change.code_point, out);
}

void normalize_nfc(AlignedText& text) {
  const auto changes = changes_of(text.size(), [&text](const auto& take) {
    for (const AlignedChar& c : text) take(c.code_point);
  });
  transform(text, changes);
}

}  // namespace bgert
