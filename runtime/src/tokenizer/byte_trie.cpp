#include "byte_trie.h"

#include <stdexcept>
#include <utility>

namespace bgert {

namespace {
constexpr unsigned kFirstBits = 8;
constexpr std::size_t kMaxNodes = std::size_t{1} << 24;  // a node and a byte share 32 bits
}  // namespace

ByteTrie::ByteTrie() : edges_(std::size_t{1} << kFirstBits), values_(1, kNone), shift_(64 - kFirstBits) {}

ByteTrie::Node ByteTrie::add_root() {
  if (values_.size() >= kMaxNodes) throw std::length_error("the vocabulary is too large");
  values_.push_back(kNone);
  return static_cast<Node>(values_.size() - 1);
}

void ByteTrie::insert(Node root, std::string_view key, std::int32_t value) {
  Node node = root;
  for (const char c : key) {
    const auto byte = static_cast<unsigned char>(c);
    Node next = child(node, byte);
    if (next == 0) {
      next = add_root();
      if (2 * ++used_ > edges_.size()) grow();
      place({node << 8 | byte, next});
    }
    node = next;
  }
  if (values_[node] == kNone) values_[node] = value;
}

void ByteTrie::place(Edge edge) {
  std::size_t i = slot(edge.key);
  while (edges_[i].child != 0) i = (i + 1) & (edges_.size() - 1);
  edges_[i] = edge;
}

void ByteTrie::grow() {
  std::vector<Edge> old(edges_.size() * 2);
  old.swap(edges_);
  --shift_;
  for (const Edge& edge : old) {
    if (edge.child != 0) place(edge);
  }
}

}  // namespace bgert
