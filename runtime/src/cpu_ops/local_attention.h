// Attention of tokens that see their neighbours alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

#include "kernels.h"

namespace bgert::ort {

// Some queries at a time, over the keys that any of them sees; a mask by distance hides the others.
class LocalAttention {
 public:
  static constexpr std::size_t kMostWindow = 1 << 20;

  // `window` others are seen on either side; 0 for all.
  explicit LocalAttention(std::size_t window) : window_(window), mask_(window == 0 ? 0 : 2 * reach() + 1) {
    for (std::size_t i = 0; i < mask_.size(); ++i) {
      const std::size_t distance = i > reach() ? i - reach() : reach() - i;
      mask_[i] = distance <= window ? 0.0f : -std::numeric_limits<float>::infinity();
    }
  }

  // The longest text that one call of `attend` sees.
  std::size_t longest(std::size_t length) const { return window_ == 0 ? length : std::min(length, kQueries + 2 * window_); }

  template <class Attend>
  void attend(const AttentionHead& head, Attend attend_all, float* scratch) const {
    if (window_ == 0 || head.length <= window_ + 1) return attend_all(head, scratch);
    for (std::size_t first = 0; first < head.queries; first += kQueries) {
      AttentionHead part = head;
      part.queries = std::min(kQueries, head.queries - first);
      const std::size_t from = first > window_ ? first - window_ : 0;
      part.length = std::min(head.length, first + part.queries + window_) - from;
      part.query += first * head.stride;
      part.out += first * head.stride;
      part.key += from * head.stride;
      part.value += from * head.stride;
      part.bias = mask_.data() + (reach() + from - first);
      attend_all(part, scratch);
    }
  }

 private:
  static constexpr std::size_t kQueries = 64;

  std::size_t reach() const { return window_ + kQueries; }

  std::size_t window_;
  std::vector<float> mask_;  // by key's place less query's, from -reach
};

}  // namespace bgert::ort
