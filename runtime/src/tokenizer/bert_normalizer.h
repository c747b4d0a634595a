// BERT's normaliser, step by step as HF describes it. The model itself uses CodePointTable, which is made from this.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "aligned_text.h"

namespace bgert {

struct BertNormalizer {
  bool clean_text = true;
  bool handle_chinese_chars = true;
  std::optional<bool> strip_accents;  ///< unset: as `lowercase`
  bool lowercase = true;

  bool strips_accents() const { return strip_accents.value_or(lowercase); }

  /// Appends the normal form of `text` to `out`.
  void normalize(std::string_view text, std::string& out) const;

  /// Normalises `text` in place.
  void normalize(AlignedText& text) const;
};

}  // namespace bgert
