#include "serve/row_text.h"

#include <array>
#include <charconv>
#include <cmath>
#include <stdexcept>
#include <string_view>

namespace bgert {
namespace {

constexpr std::size_t kLongestFloat = 24;  // a sign, nine digits, point, exponent, and room for ".0"

/// Writes the shortest text of a finite number and returns its end. A whole number gets ".0": clients that read JSON
/// into typed arrays take it for what it is.
char* write_float(char* begin, float value) {
  char* end = std::to_chars(begin, begin + kLongestFloat - 2, value).ptr;
  const std::string_view written(begin, static_cast<std::size_t>(end - begin));
  if (written.find_first_of(".e") == std::string_view::npos) {
    *end++ = '.';
    *end++ = '0';
  }
  return end;
}

constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The two characters of every twelve bits.
const std::array<std::array<char, 2>, 4096>& pairs() {
  static const auto table = [] {
    std::array<std::array<char, 2>, 4096> built{};
    for (std::size_t bits = 0; bits < built.size(); ++bits) built[bits] = {kAlphabet[bits >> 6], kAlphabet[bits & 63]};
    return built;
  }();
  return table;
}

}  // namespace

RowTexts json_rows(std::span<const float> values, std::size_t columns) {
  RowTexts rows;
  const std::size_t count = columns == 0 ? 0 : values.size() / columns;
  rows.ends.reserve(count);
  std::vector<char> row(columns * (kLongestFloat + 1) + 2);
  rows.text.reserve(values.size() * 14 + count * 2);  // a float of a unit vector has nine digits or fewer
  for (std::size_t i = 0; i < count; ++i) {
    char* out = row.data();
    *out++ = '[';
    for (const float value : values.subspan(i * columns, columns)) {
      if (!std::isfinite(value)) throw std::domain_error("row " + std::to_string(i) + " holds NaN or infinity");
      out = write_float(out, value);
      *out++ = ',';
    }
    out[-1] = ']';
    rows.text.append(row.data(), static_cast<std::size_t>(out - row.data()));
    rows.ends.push_back(rows.text.size());
  }
  return rows;
}

RowTexts base64_rows(std::span<const std::uint8_t> bytes, std::size_t width) {
  RowTexts rows;
  const std::size_t count = width == 0 ? 0 : bytes.size() / width;
  const std::size_t length = (width + 2) / 3 * 4;
  rows.ends.reserve(count);
  rows.text.resize(count * length);
  const auto& table = pairs();
  char* out = rows.text.data();
  const auto put = [&](std::uint32_t bits) {
    for (const std::uint32_t half : {bits >> 12, bits & 4095U}) {
      *out++ = table[half][0];
      *out++ = table[half][1];
    }
  };
  for (std::size_t i = 0; i < count; ++i) {
    const auto row = bytes.subspan(i * width, width);
    std::size_t at = 0;
    for (; at + 3 <= width; at += 3) {
      put(static_cast<std::uint32_t>(row[at]) << 16 | static_cast<std::uint32_t>(row[at + 1]) << 8 | row[at + 2]);
    }
    if (const std::size_t rest = width - at; rest != 0) {
      put(static_cast<std::uint32_t>(row[at]) << 16 | (rest == 2 ? static_cast<std::uint32_t>(row[at + 1]) << 8 : 0U));
      out[-1] = '=';
      if (rest == 1) out[-2] = '=';
    }
    rows.ends.push_back(static_cast<std::size_t>(out - rows.text.data()));
  }
  return rows;
}

}  // namespace bgert
