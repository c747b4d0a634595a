#include "truncation.h"

#include <algorithm>
#include <utility>

namespace bgert {

PairLengths truncate_pair(std::size_t first, std::size_t second, std::size_t room, Truncation strategy) {
  if (strategy == Truncation::kNone || first + second <= room) return {first, second, true};
  if (room == 0) return {0, 0, true};
  switch (strategy) {
    case Truncation::kOnlyFirst:
      return {room > second ? room - second : 0, second, room > second};
    case Truncation::kOnlySecond:
    case Truncation::kFlagEmbedding:
      return {first, room > first ? room - first : 0, room > first};
    default:
      break;
  }
  const bool swapped = first > second;
  std::size_t less = std::min(first, second);
  std::size_t more = less > room ? less : std::max(less, room - less);
  if (less + more > room) {
    less = room / 2;
    more = less + room % 2;
  }
  return swapped ? PairLengths{more, less, true} : PairLengths{less, more, true};
}

}  // namespace bgert
