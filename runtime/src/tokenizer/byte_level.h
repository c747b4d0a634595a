// The printable characters by which byte-level vocabularies write bytes: 'Ġ' for a space, 'a' for an 'a'.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace bgert {

constexpr char32_t kSpaceLetter = 0x120;  // Ġ

/// The character that stands for a byte.
char32_t byte_letter(unsigned char byte);

/// Appends the bytes that a token stands for; false, and nothing appended, if one of its characters stands for none.
bool append_token_bytes(std::string_view token, std::string& bytes);

/// HF's `ByteLevel` decoder: the bytes of all tokens, U+FFFD where they are no UTF-8. A token that has a character of no
/// byte stands for itself.
std::string join_byte_level(std::span<const std::string_view> tokens);

}  // namespace bgert
