// One call of an operator: its tensors, its threads and their memory.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "kernels.h"
#include "ort_abi.h"

namespace bgert::ort {

// A tensor of rank 1 or 2; `columns` is 1 at rank 1.
struct Tensor {
  std::size_t rows = 0;
  std::size_t columns = 1;
  void* data = nullptr;

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  float* floats() const { return as<float>(); }
};

// What a node keeps between calls.
struct Node {
  Api api;
  const Kernels* kernels;
  std::size_t num_heads = 1;
  float epsilon = 0.0f;
};

// One call of a node.
class Call {
 public:
  Call(const Node& of_node, KernelContext* context) : node(of_node), context_(context) {}

  Status* input(std::size_t index, Tensor& tensor) const {
    const Value* value = nullptr;
    TensorInfo* info = nullptr;
    if (Status* status = node.api.input(context_, index, &value)) return status;
    if (Status* status = node.api.shape_of(value, &info)) return status;
    std::size_t rank = 0;
    std::array<std::int64_t, 2> shape{};
    Status* status = node.api.rank(info, &rank);
    if (status == nullptr && (rank < 1 || rank > 2)) status = node.api.fail("an input must have rank 1 or 2");
    if (status == nullptr) status = node.api.dimensions(info, shape.data(), rank);
    node.api.release(info);
    if (status != nullptr) return status;
    tensor.rows = static_cast<std::size_t>(shape[0]);
    tensor.columns = rank == 2 ? static_cast<std::size_t>(shape[1]) : 1;
    return node.api.data(value, &tensor.data);
  }

  // The first tensors of a node's inputs, in order.
  template <class... Tensors>
  Status* inputs(Tensors&... tensors) const {
    Status* status = nullptr;
    std::size_t index = 0;
    ((status = status != nullptr ? status : input(index++, tensors)), ...);
    return status;
  }

  Status* output(std::size_t index, std::size_t rows, std::size_t columns, Tensor& tensor) const {
    const std::array<std::int64_t, 2> shape{static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns)};
    Value* value = nullptr;
    if (Status* status = node.api.output(context_, index, shape.data(), shape.size(), &value)) return status;
    tensor.rows = rows;
    tensor.columns = columns;
    return node.api.data(value, &tensor.data);
  }

  // task(i) for i below count, on the session's threads.
  template <class Task>
  Status* for_each(std::size_t count, const Task& task) const {
    const auto step = [](void* data, std::size_t index) { (*static_cast<const Task*>(data))(index); };
    return node.api.parallel_for(context_, step, count, const_cast<Task*>(&task));
  }

  // task(first, last) over blocks of about `block` of `count` rows.
  template <class Task>
  Status* for_blocks(std::size_t count, std::size_t block, const Task& task) const {
    return for_each((count + block - 1) / block, [&](std::size_t i) {
      task(i * block, std::min(count, (i + 1) * block));
    });
  }

  const Node& node;

 private:
  KernelContext* context_;
};

// Floats in memory of their own, aligned to a cache line.
class Memory {
 public:
  explicit Memory(std::size_t floats)
      : floats_(static_cast<float*>(::operator new(floats * sizeof(float), kAlignment))), size_(floats) {}
  Memory() = default;

  float* floats() const { return floats_.get(); }
  std::size_t size() const { return size_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(float* memory) const { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<float, Free> floats_;
  std::size_t size_ = 0;
};

// A thread's own memory, which grows to the most it was asked for: allocating anew for each call would cost page faults.
// A call's memory is shared by its tasks, so the two must not be one.
enum class Owner { kCall, kTask };

template <Owner>
float* scratch(std::size_t floats) {
  static thread_local Memory mine;
  if (mine.size() < floats) {
    mine = Memory();
    mine = Memory(floats);
  }
  return mine.floats();
}

using Compute = Status* (*)(const Call&);

}  // namespace bgert::ort
