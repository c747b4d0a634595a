// An ONNX Runtime of a few lines, for the fuzzer of the operators: it gives them its functions in a table, as the engine
// does, and tensors of exactly the size that their shapes say.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cpu_ops/ort_abi.h"

namespace bgert::ort {

struct Status {
  std::string message;
};

struct TensorInfo {
  std::vector<std::int64_t> shape;
};

struct Value {
  std::vector<std::int64_t> shape;
  std::unique_ptr<unsigned char[]> bytes;
};

struct KernelInfo {
  std::map<std::string, std::int64_t> whole;
  std::map<std::string, float> floats;
};

struct KernelContext {
  std::vector<Value*> inputs;  // null: missing
  std::vector<ElementType> output_types;
  std::vector<Value> outputs;
  bool outputs_missing = false;
  unsigned char fill = 0xA5;  // what the memory of an output holds before
  std::size_t threads = 1;
};

struct Domain {
  std::vector<const CustomOp*> operators;
};

struct SessionOptions {
  Domain* domain = nullptr;
};

}  // namespace bgert::ort

namespace bgert::fake {

using namespace bgert::ort;

inline std::atomic<int> infos = 0;  // shapes that were handed out and not given back
constexpr std::size_t kMostOutput = 1 << 24;

inline std::size_t size_of(ElementType type) {
  switch (type) {
    case kUint8:
    case kInt8:
      return 1;
    case kBfloat16:
      return 2;
    default:
      return 4;
  }
}

inline Status* fail(const char* message) { return new Status{message}; }

/// The table that operators call, each function in its place.
class Engine {
 public:
  Engine() {
    set(kCreateStatus, +[](int, const char* message) -> Status* { return fail(message); });
    set(kGetTensorMutableData, +[](Value* value, void** out) -> Status* {
      *out = value->bytes.get();
      return nullptr;
    });
    set(kGetDimensionsCount, +[](const TensorInfo* info, std::size_t* out) -> Status* {
      *out = info->shape.size();
      return nullptr;
    });
    set(kGetDimensions, +[](const TensorInfo* info, std::int64_t* out, std::size_t count) -> Status* {
      if (count > info->shape.size()) return fail("more dimensions than there are");
      std::copy_n(info->shape.begin(), count, out);
      return nullptr;
    });
    set(kGetTensorTypeAndShape, +[](const Value* value, TensorInfo** out) -> Status* {
      *out = new TensorInfo{value->shape};
      ++infos;
      return nullptr;
    });
    set(kReleaseTensorTypeAndShapeInfo, +[](TensorInfo* info) {
      delete info;
      --infos;
    });
    set(kCreateCustomOpDomain, +[](const char*, Domain** out) -> Status* {
      static Domain domain;  // never given back, as in bgert
      *out = &domain;
      return nullptr;
    });
    set(kCustomOpDomainAdd, +[](Domain* domain, const CustomOp* op) -> Status* {
      domain->operators.push_back(op);
      return nullptr;
    });
    set(kAddCustomOpDomain, +[](SessionOptions* options, Domain* domain) -> Status* {
      options->domain = domain;
      return nullptr;
    });
    set(kKernelInfoGetAttributeFloat, +[](const KernelInfo* info, const char* name, float* out) -> Status* {
      const auto found = info->floats.find(name);
      if (found == info->floats.end()) return fail("no such attribute");
      *out = found->second;
      return nullptr;
    });
    set(kKernelInfoGetAttributeInt64, +[](const KernelInfo* info, const char* name, std::int64_t* out) -> Status* {
      const auto found = info->whole.find(name);
      if (found == info->whole.end()) return fail("no such attribute");
      *out = found->second;
      return nullptr;
    });
    set(kKernelContextGetInput, +[](const KernelContext* context, std::size_t index, const Value** out) -> Status* {
      *out = index < context->inputs.size() ? context->inputs[index] : nullptr;
      return nullptr;
    });
    set(kKernelContextGetOutput, &output);
    set(kKernelContextParallelFor, &parallel_for);
  }

  Table table() const { return table_.data(); }

 private:
  template <class Function>
  void set(Place place, Function* function) {
    table_[place] = reinterpret_cast<void (*)()>(function);
  }

  static Status* output(KernelContext* context, std::size_t index, const std::int64_t* shape, std::size_t rank,
                        Value** out) {
    *out = nullptr;
    if (context->outputs_missing) return nullptr;
    if (index >= context->outputs.size()) return fail("no such output");
    Value& value = context->outputs[index];
    value.shape.assign(shape, shape + rank);
    std::size_t elements = 1;
    for (const std::int64_t dimension : value.shape) {
      if (dimension < 0 || __builtin_mul_overflow(elements, static_cast<std::size_t>(dimension), &elements) ||
          elements > kMostOutput) {
        return fail("an output is too large");
      }
    }
    const std::size_t bytes = elements * size_of(context->output_types[index]);
    value.bytes = std::make_unique<unsigned char[]>(bytes);
    std::memset(value.bytes.get(), context->fill, bytes);
    *out = &value;
    return nullptr;
  }

  static Status* parallel_for(const KernelContext* context, void (*task)(void*, std::size_t), std::size_t count,
                              std::size_t, void* data) {
    if (count > kMostOutput) return fail("more tasks than numbers");
    std::atomic<std::size_t> position = 0;
    const auto work = [&] {
      for (std::size_t i; (i = position.fetch_add(1)) < count;) task(data, i);
    };
    std::vector<std::thread> helpers;
    while (helpers.size() + 1 < std::min(context->threads, count)) helpers.emplace_back(work);
    work();
    for (std::thread& helper : helpers) helper.join();
    return nullptr;
  }

  std::array<void (*)(), 300> table_{};
};

}  // namespace bgert::fake
