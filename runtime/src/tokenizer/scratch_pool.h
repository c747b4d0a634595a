// Scratches that wait for the next call. Lock-free, so that a fork while it is in use leaves the child a usable pool.
#pragma once

#include <array>
#include <atomic>
#include <memory>

#include "text_model.h"

namespace bgert {

class ScratchPool {
 public:
  explicit ScratchPool(const TextModel& model) : model_(model) {}
  ScratchPool(const ScratchPool&) = delete;
  ScratchPool& operator=(const ScratchPool&) = delete;
  ~ScratchPool() {
    for (auto& slot : slots_) delete slot.load();
  }

  std::unique_ptr<TextModel::Scratch> take() {
    for (auto& slot : slots_) {
      if (slot.load(std::memory_order_relaxed) == nullptr) continue;
      if (TextModel::Scratch* scratch = slot.exchange(nullptr, std::memory_order_acquire)) {
        return std::unique_ptr<TextModel::Scratch>(scratch);
      }
    }
    return model_.make_scratch();
  }

  void give(std::unique_ptr<TextModel::Scratch> scratch) {
    for (auto& slot : slots_) {
      TextModel::Scratch* free = nullptr;
      if (slot.compare_exchange_strong(free, scratch.get(), std::memory_order_release, std::memory_order_relaxed)) {
        scratch.release();
        return;
      }
    }
  }

 private:
  const TextModel& model_;
  std::array<std::atomic<TextModel::Scratch*>, 64> slots_{};
};

}  // namespace bgert
