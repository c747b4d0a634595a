// Rows of numbers as the text that a reply carries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace bgert {

/// Text of many rows, end to end.
struct RowTexts {
  std::string text;
  std::vector<std::size_t> ends;  // row i ends before ends[i]
};

/// Each row as a JSON array, every number in the fewest digits that read back as the same float32.
/// Throws std::domain_error naming the row if a number is not finite: JSON has no such number.
RowTexts json_rows(std::span<const float> values, std::size_t columns);

/// Each row's bytes in base64, padded.
RowTexts base64_rows(std::span<const std::uint8_t> bytes, std::size_t width);

}  // namespace bgert
