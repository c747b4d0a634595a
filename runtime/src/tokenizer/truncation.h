// How many tokens of each text stay, by HF's rules.
#pragma once

#include <cstddef>
#include <string>

namespace bgert {

enum class Truncation {
  kLongestFirst,
  kOnlyFirst,
  kOnlySecond,
  kNone,
  kFlagEmbedding,  ///< the first text alone to 3/4 of the whole length, then the second gives way
};

/// Which end of a text that is too long goes.
enum class TruncationSide { kRight, kLeft };

struct PairLengths {
  std::size_t first = 0, second = 0;
  bool enough = true;  ///< false: the text that may be cut has too few tokens to bring the pair under the limit
};

/// What stays of a pair of `first` and `second` tokens when there is room for `room`.
PairLengths truncate_pair(std::size_t first, std::size_t second, std::size_t room, Truncation strategy);

}  // namespace bgert
