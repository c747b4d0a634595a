// A byte trie as a double array: two words a node, one look-up a byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace bgert {

class DoubleArray {
 public:
  using Node = std::uint32_t;
  static constexpr Node kRoot = 0;

  DoubleArray() = default;

  /// `keys` ascend bytewise, are different and not empty; values are not negative.
  explicit DoubleArray(const std::vector<std::pair<std::string_view, std::int32_t>>& keys);

  /// Goes to the child for a byte; false if there is none.
  bool step(Node& node, unsigned char byte) const {
    const std::uint32_t base = units_[node].link >> kLabelBits;
    if (base == 0) return false;
    const Node child = base ^ byte;
    if ((units_[child].link & kLabelMask) != byte + 1U) return false;
    node = child;
    return true;
  }

  /// The value of the key that ends at a node, or -1.
  std::int32_t value(Node node) const { return units_[node].value; }

  /// Nodes of the array, free ones counted.
  std::size_t size() const { return units_.size(); }

 private:
  static constexpr unsigned kLabelBits = 9;
  static constexpr std::uint32_t kLabelMask = (1U << kLabelBits) - 1;

  struct Unit {
    std::uint32_t link = 0;  ///< where the children are << 9 | own byte + 1; no children: 0, free: 0
    std::int32_t value = -1;
  };

  friend class DoubleArrayBuilder;
  std::vector<Unit> units_ = std::vector<Unit>(256);
};

}  // namespace bgert
