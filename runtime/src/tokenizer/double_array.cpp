#include "double_array.h"

#include <array>
#include <stdexcept>

namespace bgert {

/// Places the children of one node after the other, each set where its first child finds a free unit.
class DoubleArrayBuilder {
 public:
  using Keys = std::vector<std::pair<std::string_view, std::int32_t>>;

  DoubleArrayBuilder(DoubleArray& array, const Keys& keys) : units_(array.units_), keys_(keys) {
    units_.assign(256, {});
    units_[0].link = kTaken;
    add_block(0);
    take(0);
    if (!keys_.empty()) tasks_.push_back({0, 0, keys_.size(), 0});
    while (!tasks_.empty()) {
      const Task task = tasks_.back();
      tasks_.pop_back();
      place(task);
    }
    units_[0].link &= ~kTaken;
  }

 private:
  static constexpr std::uint32_t kNone = static_cast<std::uint32_t>(-1);
  static constexpr std::uint32_t kTaken = 1;           // a label, so that the root is not free
  static constexpr std::uint32_t kOpenBlocks = 16;      // blocks further back are full enough
  static constexpr std::uint32_t kMostUnits = 1U << 23;

  struct Children {
    std::array<unsigned char, 256> labels;
    std::array<std::size_t, 257> first;  // of keys
    std::size_t count = 0;
  };

  struct Task {
    std::uint32_t node;
    std::size_t begin, end, depth;
  };

  /// Chains the units of a block of 256 into the list of free ones.
  void add_block(std::uint32_t begin) {
    next_.resize(begin + 256);
    previous_.resize(begin + 256);
    is_base_.resize(begin + 256);
    for (std::uint32_t i = begin; i < begin + 256; ++i) {
      next_[i] = i + 1;
      previous_[i] = i - 1;
    }
    if (head_ == kNone) {
      head_ = begin;
      previous_[begin] = kNone;
    } else {
      next_[tail_] = begin;
      previous_[begin] = tail_;
    }
    tail_ = begin + 255;
    next_[tail_] = kNone;
  }

  void take(std::uint32_t unit) {
    const std::uint32_t before = previous_[unit], after = next_[unit];
    (before == kNone ? head_ : next_[before]) = after;
    (after == kNone ? tail_ : previous_[after]) = before;
  }

  bool is_free(std::uint32_t unit) const { return units_[unit].link == 0; }

  /// Where the children fit: base ^ label is free for all of them. 0 is no base, it marks a leaf. As a unit knows its
  /// label and not its parent, no two nodes have the same base.
  std::uint32_t find(const Children& children) {
    // Free units in blocks that are nearly full are given up, or the search would not end.
    const auto size = static_cast<std::uint32_t>(units_.size());
    const std::uint32_t oldest = size > kOpenBlocks * 256 ? size - kOpenBlocks * 256 : 0;
    while (head_ != kNone && head_ < oldest) take(head_);
    for (std::uint32_t unit = head_; unit != kNone; unit = next_[unit]) {
      const std::uint32_t base = unit ^ children.labels[0];
      if (base == 0 || is_base_[base]) continue;
      bool fits = true;
      for (std::size_t i = 1; fits && i < children.count; ++i) fits = is_free(base ^ children.labels[i]);
      if (fits) return base;
    }
    if (size >= kMostUnits) throw std::length_error("the vocabulary is too large for the tokenizer");
    units_.resize(size + 256);
    add_block(size);
    return size ^ children.labels[0];
  }

  /// Gives the node of keys [begin, end), which agree up to `depth`, its value and its children.
  void place(Task task) {
    if (keys_[task.begin].first.size() == task.depth) units_[task.node].value = keys_[task.begin++].second;
    if (task.begin == task.end) return;
    Children children;
    for (std::size_t i = task.begin; i < task.end; ++i) {
      const auto byte = static_cast<unsigned char>(keys_[i].first[task.depth]);
      if (children.count > 0 && children.labels[children.count - 1] == byte) continue;
      children.labels[children.count] = byte;
      children.first[children.count++] = i;
    }
    children.first[children.count] = task.end;
    const std::uint32_t base = find(children);
    is_base_[base] = true;
    units_[task.node].link |= base << DoubleArray::kLabelBits;
    for (std::size_t i = 0; i < children.count; ++i) {
      const std::uint32_t child = base ^ children.labels[i];
      units_[child].link = children.labels[i] + 1U;
      take(child);
      tasks_.push_back({child, children.first[i], children.first[i + 1], task.depth + 1});
    }
  }

  std::vector<DoubleArray::Unit>& units_;
  const Keys& keys_;
  std::vector<Task> tasks_;
  std::vector<std::uint32_t> next_, previous_;  // of the free units
  std::vector<bool> is_base_;
  std::uint32_t head_ = kNone, tail_ = kNone;
};

DoubleArray::DoubleArray(const std::vector<std::pair<std::string_view, std::int32_t>>& keys) {
  DoubleArrayBuilder(*this, keys);
}

}  // namespace bgert
