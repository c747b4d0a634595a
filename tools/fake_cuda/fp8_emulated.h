// E4M3 on a CPU, for kernels/fp8.h: by search in the table of all numbers, which shares nothing with what it checks.
#pragma once

#include <array>
#include <cmath>

namespace emulator {

inline float e4m3_of(unsigned code) {
  const unsigned exponent = code >> 3 & 15u, fraction = code & 7u;
  if ((code & 0x7fu) == 0x7fu) return std::nanf("");
  const float magnitude = exponent > 0 ? std::ldexp(8.0f + static_cast<float>(fraction), static_cast<int>(exponent) - 10)
                                       : std::ldexp(static_cast<float>(fraction), -9);
  return (code & 0x80u) != 0 ? -magnitude : magnitude;
}

inline unsigned to_e4m3(float value) {
  static const std::array<float, 127> numbers = [] {
    std::array<float, 127> all{};
    for (unsigned code = 0; code < 127; ++code) all[code] = e4m3_of(code);
    return all;
  }();
  const unsigned sign = std::signbit(value) ? 0x80u : 0u;
  if (std::isnan(value)) return 0x7fu;
  const float magnitude = std::fabs(value);
  unsigned code = 0;
  while (code < 126 && numbers[code + 1] <= magnitude) ++code;
  if (code < 126) {
    const float below = magnitude - numbers[code], above = numbers[code + 1] - magnitude;
    if (above < below || (above == below && (code & 1u) != 0)) ++code;
  }
  return sign | code;
}

}  // namespace emulator

inline unsigned pack_e4m3(float a, float b, float c, float d) {
  return emulator::to_e4m3(a) | emulator::to_e4m3(b) << 8 | emulator::to_e4m3(c) << 16 | emulator::to_e4m3(d) << 24;
}
