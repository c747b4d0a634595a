// Extended grapheme clusters, as the `unicode-segmentation` crate inside HF tokenizers finds them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bgert::grapheme {

/// What tools/probe_grapheme_tables.py found out about a code point.
enum Property : std::uint16_t {
  kAttaches = 1,            ///< Extend, SpacingMark or ZWJ: joins what stands before it
  kPrepend = 2,             ///< joins what follows
  kControl = 4,             ///< joins nothing
  kLeading = 8,             ///< Hangul L
  kVowel = 16,              ///< Hangul V, and LV but for kSyllable
  kTrailing = 32,           ///< Hangul T, and LVT but for kSyllable
  kSyllable = 64,           ///< a precomposed Hangul syllable
  kConsonant = 128,         ///< Indic_Conjunct_Break=Consonant
  kLinker = 256,            ///< Indic_Conjunct_Break=Linker
  kInConjunct = 512,        ///< may stand between a linker and a consonant
  kPictograph = 1024,       ///< Extended_Pictographic
  kAfterPictograph = 2048,  ///< may stand between a pictograph and ZWJ
};

/// Bits of Property for every code point.
const std::uint16_t* all_properties();

inline std::uint16_t properties(char32_t cp) { return all_properties()[cp]; }

/// Whether a cluster that begins with this code point may go on with one that does not attach by itself.
constexpr bool glues(std::uint16_t properties, char32_t cp) {
  return cp == '\r' || (properties & (kPrepend | kLeading)) != 0;
}

/// Whether a code point may join what stands before it, whatever that is.
constexpr bool attaches(std::uint16_t properties) {
  return (properties & kAttaches) != 0 ||
         ((properties & (kVowel | kTrailing)) != 0 && (properties & kSyllable) == 0);
}

/// The bytes of the first cluster of a text that is not empty.
std::size_t cluster_size(const char* p, const char* end);

}  // namespace bgert::grapheme
