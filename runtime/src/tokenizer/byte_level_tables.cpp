#include "byte_level_tables.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

#include "char_classes.h"

namespace bgert {
namespace {

struct ClassChange {
  char32_t first;
  std::uint8_t classes;
};

#include "byte_level_tables.inc"

constexpr std::size_t kCodePoints = 0x110000;

}  // namespace

const std::uint8_t* char_classes() {
  static const std::vector<std::uint8_t> classes = [] {
    std::vector<std::uint8_t> spread(kCodePoints);
    for (std::size_t i = 0; i < std::size(kClassChanges); ++i) {
      const std::size_t stop = i + 1 < std::size(kClassChanges) ? kClassChanges[i + 1].first : kCodePoints;
      std::fill(spread.begin() + static_cast<std::ptrdiff_t>(kClassChanges[i].first),
                spread.begin() + static_cast<std::ptrdiff_t>(stop), kClassChanges[i].classes);
    }
    return spread;
  }();
  return classes.data();
}

std::span<const Composition> compositions() { return kCompositions; }

}  // namespace bgert
