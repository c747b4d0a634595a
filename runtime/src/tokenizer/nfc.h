// Canonical composition (NFC), the normaliser of some byte-level tokenizers.
#pragma once

#include <string>
#include <string_view>

#include "aligned_text.h"

namespace bgert {

/// Whether NFC certainly leaves a text as it is.
bool is_quickly_nfc(std::string_view text);

/// Appends the normal form of `text` to `out`.
void append_nfc(std::string_view text, std::string& out);

/// Normalises `text` in place, with the origins that HF gives to characters.
void normalize_nfc(AlignedText& text);

}  // namespace bgert
