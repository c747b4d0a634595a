#include "byte_level.h"

#include <array>
#include <cstdint>

#include "utf8.h"

namespace bgert {
namespace {

/// Bytes that are printable in Latin-1 stand for themselves; the others follow from U+0100 on.
constexpr bool is_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr auto kLetters = [] {
  std::array<char32_t, 256> letters{};
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) letters[byte] = is_itself(byte) ? byte : next++;
  return letters;
}();

constexpr std::int16_t kNoByte = -1;
constexpr auto kBytes = [] {
  std::array<std::int16_t, 0x144> bytes{};
  bytes.fill(kNoByte);
  for (unsigned byte = 0; byte < 256; ++byte) bytes[kLetters[byte]] = static_cast<std::int16_t>(byte);
  return bytes;
}();
static_assert(kLetters[' '] == kSpaceLetter);

/// How many bytes from `p` on a decoder takes as one error: the beginning of a character, or one byte.
std::size_t broken_length(const char* p, const char* end) {
  const auto byte = [p](std::size_t i) { return static_cast<unsigned char>(p[i]); };
  const unsigned char lead = byte(0);
  const std::size_t wanted = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4) return 1;
  std::size_t length = 1;
  for (; length < wanted && p + length < end; ++length) {
    unsigned low = 0x80, high = 0xBF;
    if (length == 1 && lead == 0xE0) low = 0xA0;
    if (length == 1 && lead == 0xED) high = 0x9F;
    if (length == 1 && lead == 0xF0) low = 0x90;
    if (length == 1 && lead == 0xF4) high = 0x8F;
    if (byte(length) < low || byte(length) > high) break;
  }
  return length;
}

std::string with_replacements(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (const char *p = bytes.data(), *end = p + bytes.size(); p < end;) {
    const std::size_t length = decode_utf8(p, end).length;
    if (is_utf8({p, length})) {
      text.append(p, length);
      p += length;
    } else {
      append_utf8(kReplacement, text);
      p += broken_length(p, end);
    }
  }
  return text;
}

}  // namespace

char32_t byte_letter(unsigned char byte) { return kLetters[byte]; }

bool append_token_bytes(std::string_view token, std::string& bytes) {
  const std::size_t before = bytes.size();
  for (const char *p = token.data(), *end = p + token.size(); p < end;) {
    const Decoded next = decode_utf8(p, end);
    if (next.code_point >= kBytes.size() || kBytes[next.code_point] == kNoByte) {
      bytes.resize(before);
      return false;
    }
    bytes.push_back(static_cast<char>(kBytes[next.code_point]));
    p += next.length;
  }
  return true;
}

std::string join_byte_level(std::span<const std::string_view> tokens) {
  std::string bytes;
  for (const std::string_view token : tokens) {
    if (!append_token_bytes(token, bytes)) bytes.append(token);
  }
  return with_replacements(bytes);
}

}  // namespace bgert
