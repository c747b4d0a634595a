// A byte trie for longest-prefix search, its edges in one hash table: quick to build, one probe a byte to walk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace bgert {

class ByteTrie {
 public:
  using Node = std::uint32_t;
  static constexpr std::int32_t kNone = -1;

  struct Match {
    std::int32_t value = kNone;
    std::size_t length = 0;
  };

  ByteTrie();

  /// Starts another set of keys in the same table; node 0 is the first root.
  Node add_root();

  /// Maps `key` to `value`; a key that is already there keeps its first value.
  void insert(Node root, std::string_view key, std::int32_t value);

  /// The longest key that begins `text`, or kNone.
  Match longest(Node root, std::string_view text) const {
    Match best;
    Node node = root;
    for (std::size_t i = 0; i < text.size(); ++i) {
      node = child(node, static_cast<unsigned char>(text[i]));
      if (node == 0) break;
      if (values_[node] != kNone) best = {values_[node], i + 1};
    }
    return best;
  }

  /// The value of exactly this key, or kNone.
  std::int32_t find(Node root, std::string_view key) const {
    const Match match = longest(root, key);
    return match.length == key.size() && !key.empty() ? match.value : kNone;
  }

 private:
  struct Edge {
    std::uint32_t key = 0;  ///< parent << 8 | byte
    Node child = 0;         ///< 0: the slot is free, as no edge leads to the first root
  };

  std::size_t slot(std::uint32_t key) const {
    return static_cast<std::size_t>(key * 0x9E3779B97F4A7C15ULL >> shift_);
  }

  Node child(Node node, unsigned char byte) const {
    const std::uint32_t key = node << 8 | byte;
    for (std::size_t i = slot(key);; i = (i + 1) & (edges_.size() - 1)) {
      const Edge& edge = edges_[i];
      if (edge.child == 0 || edge.key == key) return edge.child;
    }
  }

  void place(Edge edge);
  void grow();

  std::vector<Edge> edges_;
  std::vector<std::int32_t> values_;
  std::size_t used_ = 0;
  unsigned shift_;
};

}  // namespace bgert
