// What was probed of the tables inside HF tokenizers for byte-level tokenizers, see tools/probe_byte_level_tables.py.
#pragma once

#include <span>

namespace bgert {

/// Two characters and the one that NFC makes of them.
struct Composition {
  char32_t first, second, made;
};

/// All of them but those of Hangul, ordered.
std::span<const Composition> compositions();

}  // namespace bgert
