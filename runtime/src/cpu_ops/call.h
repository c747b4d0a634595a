// One call of an operator: its tensors, its threads and their memory.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>

#include "kernels.h"
#include "ort_abi.h"

namespace bgert::ort {

// The numbers of an input or output; what is no matrix is one row.
struct Tensor {
  std::size_t rows = 0;
  std::size_t columns = 0;
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
  std::size_t inputs = 0;
  std::size_t num_heads = 1;
  std::size_t window = 0;  // of attention to neighbours alone
  bool seen = false;       // attention: input 4 says how many tokens of each text are keys
  float epsilon = 0.0f;
};

constexpr const char* kNoMemory = "out of memory";

// One call of a node.
class Call {
 public:
  Call(const Node& of_node, KernelContext* context) : node(of_node), context_(context) {}

  // An input [rows, columns] with at least one column. Whoever writes a graph chooses every shape in it, so the memory
  // behind an input is known by its shape alone: each is read by one of the three below, which check all of it.
  Status* matrix(std::size_t index, Tensor& tensor) const {
    Shape shape;
    if (Status* status = read(index, shape, tensor.data)) return status;
    if (shape.rank != 2 || shape.dimensions[1] == 0) return misfit(index, "is no matrix");
    tensor.rows = shape.dimensions[0];
    tensor.columns = shape.dimensions[1];
    return nullptr;
  }

  // An input [n] with at least one number.
  Status* vector(std::size_t index, Tensor& tensor) const {
    Shape shape;
    if (Status* status = read(index, shape, tensor.data)) return status;
    if (shape.rank != 1 || shape.elements == 0) return misfit(index, "is no vector");
    tensor.rows = 1;
    tensor.columns = shape.elements;
    return nullptr;
  }

  // An input [size].
  Status* vector(std::size_t index, std::size_t size, Tensor& tensor) const {
    if (Status* status = vector(index, tensor)) return status;
    return tensor.columns == size ? nullptr : misfit(index, "has another length than the rows");
  }

  // A matrix [depth, columns] that is stored as panels, in one row or a row for each.
  Status* panels(std::size_t index, std::size_t depth, std::size_t columns, Tensor& tensor) const {
    Shape shape;
    if (Status* status = read(index, shape, tensor.data)) return status;
    std::size_t elements = 0;
    if (__builtin_mul_overflow(depth, columns, &elements) || shape.elements != elements) {
      return misfit(index, "is no matrix for these rows and this bias");
    }
    tensor.rows = depth;
    tensor.columns = columns;
    return nullptr;
  }

  Status* misfit(std::size_t index, const char* what) const {
    return node.api.fail(("input " + std::to_string(index) + " " + what + ": the inputs do not fit together").c_str());
  }

  Status* output(std::size_t index, std::size_t rows, std::size_t columns, Tensor& tensor) const {
    const std::array<std::int64_t, 2> shape{static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns)};
    Value* value = nullptr;
    if (Status* status = node.api.output(context_, index, shape.data(), shape.size(), &value)) return status;
    if (value == nullptr) return node.api.fail("an output is missing");
    tensor.rows = rows;
    tensor.columns = columns;
    return node.api.data(value, &tensor.data);
  }

  // task(i) for i below count, on the session's threads. What a task throws stays here: it would unwind the callers'
  // frames while other threads still work from them.
  template <class Task>
  Status* for_each(std::size_t count, const Task& task) const {
    struct Shared {
      const Task& task;
      std::atomic<bool> failed = false;
    };
    Shared shared{task};
    const auto step = [](void* data, std::size_t index) {
      auto& all = *static_cast<Shared*>(data);
      if (all.failed.load(std::memory_order_relaxed)) return;
      try {
        all.task(index);
      } catch (...) {  // memory is all that a task can lack
        all.failed = true;
      }
    };
    if (Status* status = node.api.parallel_for(context_, step, count, &shared)) return status;
    return shared.failed ? node.api.fail(kNoMemory) : nullptr;
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
  static constexpr std::size_t kMostRank = 2;

  struct Shape {
    std::size_t rank = 0;
    std::array<std::size_t, kMostRank> dimensions{};
    std::size_t elements = 1;
  };

  // The shape of an input of rank 1 or 2, and where its numbers are.
  Status* read(std::size_t index, Shape& shape, void*& data) const {
    const Value* value = nullptr;
    TensorInfo* info = nullptr;
    if (Status* status = node.api.input(context_, index, &value)) return status;
    if (value == nullptr) return misfit(index, "is missing");
    if (Status* status = node.api.shape_of(value, &info)) return status;
    std::array<std::int64_t, kMostRank> dimensions{};
    Status* status = node.api.rank(info, &shape.rank);
    if (status == nullptr && (shape.rank < 1 || shape.rank > kMostRank)) status = misfit(index, "has not rank 1 or 2");
    if (status == nullptr) status = node.api.dimensions(info, dimensions.data(), shape.rank);
    node.api.release(info);
    if (status != nullptr) return status;
    for (std::size_t i = 0; i < shape.rank; ++i) {
      shape.dimensions[i] = static_cast<std::size_t>(dimensions[i]);
      if (dimensions[i] < 0 || __builtin_mul_overflow(shape.elements, shape.dimensions[i], &shape.elements)) {
        return misfit(index, "has no size");
      }
    }
    return node.api.data(value, &data);
  }

  KernelContext* context_;
};

// Floats in memory of their own, aligned to a cache line.
class Memory {
 public:
  explicit Memory(std::size_t floats)
      : floats_(static_cast<float*>(::operator new(bytes_of(floats), kAlignment))), size_(floats) {}
  Memory() = default;

  float* floats() const { return floats_.get(); }
  std::size_t size() const { return size_; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  static std::size_t bytes_of(std::size_t floats) {
    std::size_t bytes = 0;
    if (__builtin_mul_overflow(floats, sizeof(float), &bytes)) throw std::bad_alloc();
    return bytes;
  }
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
