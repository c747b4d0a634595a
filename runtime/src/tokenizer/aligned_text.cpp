#include "aligned_text.h"

#include <utility>

#include "utf8.h"

namespace bgert {

AlignedText align(std::string_view text, std::size_t first) {
  AlignedText out;
  out.reserve(text.size());
  auto at = static_cast<std::uint32_t>(first);
  for (const char *p = text.data(), *end = p + text.size(); p < end; ++at) {
    const Decoded next = decode_utf8(p, end);
    out.push_back({next.code_point, at, at + 1});
    p += next.length;
  }
  return out;
}

void transform(AlignedText& text, std::span<const Change> changes, std::size_t removed) {
  AlignedText out;
  out.reserve(changes.size());
  std::size_t next = removed;  // the first character of `text` that nothing has replaced
  for (const Change& change : changes) {
    if (change.change > 0) {
      const AlignedChar& origin = text[next == 0 ? 0 : next - 1];
      out.push_back({change.code_point, origin.start, origin.stop});
    } else {
      const AlignedChar& origin = text[next];
      out.push_back({change.code_point, origin.start, origin.stop});
      next += 1 + static_cast<std::size_t>(-change.change);
    }
  }
  text = std::move(out);
}

std::string to_utf8(std::span<const AlignedChar> text) {
  std::string out;
  out.reserve(text.size());
  for (const AlignedChar& c : text) append_utf8(c.code_point, out);
  return out;
}

std::size_t count_characters(std::string_view text) {
  std::size_t count = 0;
  for (const char *p = text.data(), *end = p + text.size(); p < end; ++count) p += decode_utf8(p, end).length;
  return count;
}

std::size_t CharacterCursor::first(std::string_view part) {
  const char* const begin = part.data();
  if (begin >= at_) {
    number_ += count_characters({at_, begin});
  } else {
    number_ -= count_characters({begin, at_});
  }
  at_ = begin;
  return number_;
}

}  // namespace bgert
