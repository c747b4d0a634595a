// Canonical decomposition (NFD) of anything that holds code points.
#pragma once

#include <algorithm>

#include "unicode.h"

namespace bgert {

/// Calls `take(part, first)` for each part of a code point's full decomposition; `first` is false from the second on.
template <typename Take>
void decompose(char32_t cp, const Take& take) {
  if (unicode::is_hangul(cp)) {
    const unicode::Jamo jamo = unicode::decompose_hangul(cp);
    for (int i = 0; i < jamo.count; ++i) take(jamo.parts[i], i == 0);
    return;
  }
  const std::u32string_view parts = unicode::decomposition(cp);
  if (parts.empty()) take(cp, true);
  for (std::size_t i = 0; i < parts.size(); ++i) take(parts[i], i == 0);
}

/// Puts marks that follow each other into canonical order; `code_point` gives that of an item.
template <typename Items, typename CodePoint>
void order_marks(Items& items, const CodePoint& code_point) {
  const auto combining = [&](const auto& item) { return unicode::combining_class(code_point(item)); };
  const auto by_class = [&](const auto& a, const auto& b) { return combining(a) < combining(b); };
  const auto is_mark = [&](const auto& item) { return combining(item) != 0; };
  for (auto begin = std::find_if(items.begin(), items.end(), is_mark); begin != items.end();) {
    const auto end = std::find_if_not(begin, items.end(), is_mark);
    std::stable_sort(begin, end, by_class);
    begin = std::find_if(end, items.end(), is_mark);
  }
}

}  // namespace bgert
