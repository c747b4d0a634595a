// UTF-8 in and out, one code point at a time.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace bgert {

struct Decoded {
  char32_t code_point;
  std::size_t length;  ///< bytes, at least 1
};

constexpr char32_t kReplacement = 0xFFFD;

/// The code point at `p`, which is before `end`. A byte that begins none counts as U+FFFD, so any bytes are safe.
inline Decoded decode_utf8(const char* p, const char* end) {
  const auto byte = [p](std::size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(p[i])); };
  const auto tail = [&byte](std::size_t i) { return byte(i) & 0x3F; };
  const char32_t lead = byte(0);
  const auto left = static_cast<std::size_t>(end - p);
  if (lead < 0x80) return {lead, 1};
  if (lead >= 0xE0 && lead < 0xF0 && left >= 3) return {(lead & 0xF) << 12 | tail(1) << 6 | tail(2), 3};
  if (lead >= 0xC0 && lead < 0xE0 && left >= 2) return {(lead & 0x1F) << 6 | tail(1), 2};
  if (lead >= 0xF0 && lead < 0xF5 && left >= 4) {
    const char32_t cp = (lead & 7) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3);
    if (cp < 0x110000) return {cp, 4};
  }
  return {kReplacement, 1};
}

/// The code point that ends just before `p`, which is after `begin`.
inline Decoded decode_utf8_before(const char* begin, const char* p) {
  const char* start = p - 1;
  while (start > begin && p - start < 4 && (static_cast<unsigned char>(*start) & 0xC0) == 0x80) --start;
  const Decoded decoded = decode_utf8(start, p);
  return decoded.length == static_cast<std::size_t>(p - start) ? decoded : Decoded{kReplacement, 1};
}

/// Writes a code point to `out`, which has room for 4 bytes, and returns the bytes written.
inline std::size_t encode_utf8(char32_t cp, char* out) {
  const auto put = [out](std::size_t i, char32_t value) { out[i] = static_cast<char>(value); };
  if (cp < 0x80) {
    put(0, cp);
    return 1;
  }
  if (cp < 0x800) {
    put(0, 0xC0 | cp >> 6);
    put(1, 0x80 | (cp & 0x3F));
    return 2;
  }
  if (cp < 0x10000) {
    put(0, 0xE0 | cp >> 12);
    put(1, 0x80 | (cp >> 6 & 0x3F));
    put(2, 0x80 | (cp & 0x3F));
    return 3;
  }
  put(0, 0xF0 | cp >> 18);
  put(1, 0x80 | (cp >> 12 & 0x3F));
  put(2, 0x80 | (cp >> 6 & 0x3F));
  put(3, 0x80 | (cp & 0x3F));
  return 4;
}

inline void append_utf8(char32_t cp, std::string& out) {
  char bytes[4];
  out.append(bytes, encode_utf8(cp, bytes));
}

/// Whether the bytes are UTF-8: no overlong form, no surrogate.
inline bool is_utf8(std::string_view text) {
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    if (static_cast<unsigned char>(*p) < 0x80) {
      ++p;
      continue;
    }
    const Decoded next = decode_utf8(p, end);
    char again[4];
    if (next.length == 1 || (next.code_point >= 0xD800 && next.code_point < 0xE000)) return false;
    if (encode_utf8(next.code_point, again) != next.length) return false;
    for (std::size_t i = 0; i < next.length; ++i) {
      if (again[i] != p[i]) return false;
    }
    p += next.length;
  }
  return true;
}

}  // namespace bgert
