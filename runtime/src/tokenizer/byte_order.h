// Little-endian numbers at any address.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>

namespace bgert {

inline std::uint32_t load_u32(const char* p) {
  std::uint32_t value;
  std::memcpy(&value, p, sizeof value);
  if constexpr (std::endian::native == std::endian::big) value = __builtin_bswap32(value);
  return value;
}

inline std::uint64_t load_u64(const char* p) {
  return load_u32(p) | static_cast<std::uint64_t>(load_u32(p + 4)) << 32;
}

inline void append_u32(std::uint32_t value, std::string& out) {
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<char>(value >> shift & 0xFF));
}

inline void append_u64(std::uint64_t value, std::string& out) {
  append_u32(static_cast<std::uint32_t>(value), out);
  append_u32(static_cast<std::uint32_t>(value >> 32), out);
}

}  // namespace bgert
