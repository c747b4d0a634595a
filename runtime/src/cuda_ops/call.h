// One call of an operator: its tensors on the device, and the stream.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "blas.h"
#include "cpu_ops/ort_abi.h"
#include "driver.h"

namespace bgert::cuda {

// What went wrong, thrown and passed on to ONNX Runtime.
struct Refused {
  ort::Status* status;
};

inline void must(ort::Status* status) {
  if (status != nullptr) throw Refused{status};
}

// An input or output on the device.
struct Tensor {
  std::size_t rank = 0;
  std::array<std::int64_t, 2> dimensions{1, 1};
  std::int64_t elements = 0;
  void* data = nullptr;

  std::int64_t rows() const { return rank == 2 ? dimensions[0] : 1; }
  std::int64_t columns() const { return rank == 2 ? dimensions[1] : dimensions[0]; }
};

// What a node keeps between calls.
struct Node {
  ort::Api api;
  Device& device;
  const char* name;
  std::int64_t num_heads = 1;
  std::int64_t rows_a_type = 0;
  std::int64_t mean = 0;
  std::int64_t normalize = 0;
  std::int64_t least_tokens = 0;
  float epsilon = 0.0f;

  std::mutex mutex;  // of what follows
  std::map<std::int64_t, std::unique_ptr<Description>> products;  // by rows
  std::shared_ptr<Memory> workspace;
  Stream workspace_stream = nullptr;

  Node(ort::Api of, Device& on, const char* called) : api(of), device(on), name(called) {}
};

class Call {
 public:
  Call(Node& of, ort::KernelContext* context) : node(of), context_(context) {
    must(node.api.gpu_stream(context, &stream));
  }

  // Whoever writes a graph chooses every shape in it: what is read from memory is checked against one of these.
  Tensor matrix(std::size_t index) const { return read(index, 2); }
  Tensor matrix(std::size_t index, std::int64_t rows, std::int64_t columns) const {
    const Tensor tensor = read(index, 2);
    if (tensor.rows() != rows || tensor.columns() != columns) misfit(index);
    return tensor;
  }
  Tensor vector(std::size_t index) const { return read(index, 1); }
  Tensor vector(std::size_t index, std::int64_t size) const {
    const Tensor tensor = read(index, 1);
    if (tensor.elements != size) misfit(index);
    return tensor;
  }

  // An output [rows, columns], the first one or another.
  Tensor output(std::int64_t rows, std::int64_t columns, std::size_t index = 0) const {
    return output(index, 2, {rows, columns});
  }
  // An output [size].
  Tensor output_vector(std::int64_t size, std::size_t index) const { return output(index, 1, {size, 1}); }

  [[noreturn]] void misfit(std::size_t index) const {
    fail("input " + std::to_string(index) + " has a shape that does not fit the others");
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw Refused{node.api.fail((std::string(node.name) + ": " + what).c_str())};
  }

  template <class... Arguments>
  void launch(const std::string& kernel, std::int64_t grid_x, std::int64_t grid_y, unsigned threads,
              std::size_t shared, Arguments... arguments) const {
    if (grid_x < 1 || grid_y < 1) return;
    if (grid_x > 0x7fffffff || grid_y > 65535) fail("a batch is too large");
    node.device.launch(kernel, static_cast<unsigned>(grid_x), static_cast<unsigned>(grid_y), threads, shared, stream,
                       arguments...);
  }

  Node& node;
  Stream stream = nullptr;

 private:
  Tensor output(std::size_t index, std::size_t rank, const std::array<std::int64_t, 2>& shape) const {
    ort::Value* value = nullptr;
    must(node.api.output(context_, index, shape.data(), rank, &value));
    Tensor tensor{rank, shape, shape[0] * shape[1], nullptr};
    must(node.api.data(value, &tensor.data));
    return tensor;
  }

  Tensor read(std::size_t index, std::size_t rank) const {
    const ort::Value* value = nullptr;
    must(node.api.input(context_, index, &value));
    ort::TensorInfo* info = nullptr;
    must(node.api.shape_of(value, &info));
    Tensor tensor;
    ort::Status* status = node.api.rank(info, &tensor.rank);
    if (status == nullptr && tensor.rank == rank) status = node.api.dimensions(info, tensor.dimensions.data(), rank);
    node.api.release(info);
    must(status);
    if (tensor.rank != rank) misfit(index);
    tensor.elements = tensor.rows() * tensor.columns();
    // Kernels count rows and columns in int.
    if (tensor.rows() > 0x7fffffff || tensor.columns() > 0x7fffffff) misfit(index);
    must(node.api.data(value, &tensor.data));
    return tensor;
  }

  ort::KernelContext* context_;
};

}  // namespace bgert::cuda
