// The file that holds a Unigram tokenizer in a model folder. All numbers are little-endian, nothing is aligned:
//
//   8 bytes         "BGERTUNI"
//   u32             version, 1
//   u32             id of the unknown piece
//   u64             how many pieces there are, n
//   u64             bytes of the pieces, p
//   u64             bytes of the charsmap, c
//   f64 [n]         scores of the pieces by id
//   p bytes         the pieces by id, UTF-8, each ended by a NUL
//   c bytes         `precompiled_charsmap` of the SentencePiece model; c is 0 if there is none
#pragma once

#include <string_view>
#include <vector>

#include "text_model.h"

namespace bgert {

struct UnigramFile {
  std::vector<std::string_view> pieces;  ///< into the bytes that were read
  std::vector<double> scores;
  std::string_view charsmap;
  TokenId unk_id = 0;

  /// Throws std::invalid_argument if the bytes are not such a file.
  explicit UnigramFile(std::string_view bytes);
};

}  // namespace bgert
