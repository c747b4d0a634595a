// The file that holds a byte-level BPE vocabulary in a model folder. All numbers are little-endian, nothing is aligned:
//
//   8 bytes         "BGERTBPE"
//   u32             version, 1
//   u32             how many tokens there are, n
//   u32             how many merges there are, m
//   u64             bytes of the tokens, p
//   u32 [3 m]       merges by rank: the ids of the left token, of the right one, and of what they become
//   p bytes         the tokens by id, UTF-8, each ended by a NUL; empty where an id has none
#pragma once

#include <string_view>
#include <vector>

#include "text_model.h"

namespace bgert {

struct Merge {
  TokenId left, right, merged;
};

struct BpeFile {
  std::vector<std::string_view> pieces;  ///< into the bytes that were read
  std::vector<Merge> merges;

  /// Throws std::invalid_argument if the bytes are not such a file, or a merge is not of the tokens that it says.
  explicit BpeFile(std::string_view bytes);
};

}  // namespace bgert
