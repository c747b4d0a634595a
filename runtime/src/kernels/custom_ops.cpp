// The operators of domain `bgert`, for ONNX Runtime's `register_custom_ops_library`.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>

#include "kernels.h"
#include "ort_abi.h"

namespace bgert::ort {
namespace {

std::atomic<const Kernels*> g_kernels = nullptr;

// A float or int32 tensor of rank 1 or 2; `columns` is 1 at rank 1.
struct Tensor {
  std::size_t rows = 0;
  std::size_t columns = 1;
  void* data = nullptr;

  float* floats() const { return static_cast<float*>(data); }
  const std::int32_t* ints() const { return static_cast<const std::int32_t*>(data); }
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

  Status* output(std::size_t rows, std::size_t columns, Tensor& tensor) const {
    const std::array<std::int64_t, 2> shape{static_cast<std::int64_t>(rows), static_cast<std::int64_t>(columns)};
    Value* value = nullptr;
    if (Status* status = node.api.output(context_, 0, shape.data(), shape.size(), &value)) return status;
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

// A thread's own working memory, which grows to the largest size it was asked for.
class Scratch {
 public:
  float* reserve(std::size_t floats) {
    if (floats > size_) {
      memory_.reset();
      size_ = 0;
      memory_.reset(static_cast<float*>(::operator new(floats * sizeof(float), kAlignment)));
      size_ = floats;
    }
    return memory_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(float* memory) const { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<float, Free> memory_;
  std::size_t size_ = 0;
};

float* scratch(std::size_t floats) {
  static thread_local Scratch mine;
  return mine.reserve(floats);
}

bool ascending(const Tensor& cu_seqlens, std::size_t tokens) {
  const std::int32_t* at = cu_seqlens.ints();
  if (cu_seqlens.rows < 1 || at[0] != 0 || static_cast<std::size_t>(at[cu_seqlens.rows - 1]) != tokens) return false;
  for (std::size_t i = 1; i < cu_seqlens.rows; ++i) {
    if (at[i] <= at[i - 1]) return false;
  }
  return true;
}

// query [T, H] or, where one token a text asks, [B, H]; key and value [T, H]; cu_seqlens [B + 1] -> like query.
Status* packed_attention(const Call& call) {
  Tensor query, key, value, cu_seqlens, out;
  const Node& node = call.node;
  for (std::size_t i = 0; Tensor* tensor : {&query, &key, &value, &cu_seqlens}) {
    if (Status* status = call.input(i++, *tensor)) return status;
  }
  const std::size_t texts = cu_seqlens.rows - 1, hidden = key.columns;
  if (!ascending(cu_seqlens, key.rows)) return node.api.fail("cu_seqlens does not rise from 0 to the number of tokens");
  if (value.rows != key.rows || value.columns != hidden || query.columns != hidden || hidden % node.num_heads != 0 ||
      (query.rows != key.rows && query.rows != texts)) {
    return node.api.fail("query, key and value do not fit together");
  }
  if (Status* status = call.output(query.rows, hidden, out)) return status;
  const bool one_each = query.rows != key.rows;
  const std::size_t size = hidden / node.num_heads;
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  // The longest text's memory for every text: asked for once, and the same for all threads.
  std::size_t longest = 0;
  const std::int32_t* at = cu_seqlens.ints();
  for (std::size_t i = 0; i < texts; ++i) longest = std::max(longest, static_cast<std::size_t>(at[i + 1] - at[i]));
  const std::size_t floats = node.kernels->attention_scratch(longest, size);
  return call.for_each(texts * node.num_heads, [&](std::size_t unit) {
    const std::size_t text = unit / node.num_heads, column = unit % node.num_heads * size;
    const auto first = static_cast<std::size_t>(at[text]), length = static_cast<std::size_t>(at[text + 1]) - first;
    const std::size_t row = (one_each ? text : first) * hidden + column, tokens = first * hidden + column;
    const AttentionHead head{query.floats() + row, key.floats() + tokens, value.floats() + tokens,
                             out.floats() + row,   hidden,                one_each ? 1 : length,
                             length,               size,                  scale};
    call.node.kernels->attend(head, scratch(floats));
  });
}

// x and residual [T, H], gamma and beta [H] -> LayerNormalization(x + residual), [T, H].
Status* add_layer_norm(const Call& call) {
  Tensor x, residual, gamma, beta, out;
  for (std::size_t i = 0; Tensor* tensor : {&x, &residual, &gamma, &beta}) {
    if (Status* status = call.input(i++, *tensor)) return status;
  }
  const std::size_t size = x.columns;
  if (residual.rows != x.rows || residual.columns != size || gamma.rows != size || beta.rows != size) {
    return call.node.api.fail("x, residual, gamma and beta do not fit together");
  }
  if (Status* status = call.output(x.rows, size, out)) return status;
  return call.for_blocks(x.rows, 16, [&](std::size_t row, std::size_t last) {
    for (; row < last; ++row) {
      call.node.kernels->add_layer_norm(x.floats() + row * size, residual.floats() + row * size, gamma.floats(), beta.floats(),
                                call.node.epsilon, size, out.floats() + row * size);
    }
  });
}

// x [T, H] -> GELU with the error function, [T, H].
Status* gelu(const Call& call) {
  Tensor x, out;
  if (Status* status = call.input(0, x)) return status;
  if (Status* status = call.output(x.rows, x.columns, out)) return status;
  return call.for_blocks(x.rows * x.columns, 8192, [&](std::size_t first, std::size_t last) {
    call.node.kernels->gelu(x.floats() + first, last - first, out.floats() + first);
  });
}

// rows [T, H], cu_seqlens [B + 1] -> mean of each text's rows, [B, H].
Status* mean_pool(const Call& call) {
  Tensor rows, cu_seqlens, out;
  if (Status* status = call.input(0, rows)) return status;
  if (Status* status = call.input(1, cu_seqlens)) return status;
  if (!ascending(cu_seqlens, rows.rows)) {
    return call.node.api.fail("cu_seqlens does not rise from 0 to the number of tokens");
  }
  if (Status* status = call.output(cu_seqlens.rows - 1, rows.columns, out)) return status;
  const std::int32_t* at = cu_seqlens.ints();
  return call.for_each(out.rows, [&](std::size_t text) {
    const auto first = static_cast<std::size_t>(at[text]), length = static_cast<std::size_t>(at[text + 1]) - first;
    call.node.kernels->mean_rows(rows.floats() + first * rows.columns, length, rows.columns,
                         out.floats() + text * rows.columns);
  });
}

using Compute = Status* (*)(const Call&);

struct Operator : CustomOp {
  const char* name;
  Compute compute;
  std::size_t inputs;
  std::size_t int_input;  // the one that is int32; `inputs` if none is
  const char* float_attribute;
  const char* int_attribute;
};

const Operator& of(const CustomOp* op) { return *static_cast<const Operator*>(op); }

struct Instance {
  Node node;
  Compute compute;
};

Status* create(const CustomOp* op, Table table, const KernelInfo* info, void** out) {
  auto instance = std::make_unique<Instance>(Instance{Node{Api(table), g_kernels}, of(op).compute});
  Node& node = instance->node;
  if (of(op).float_attribute != nullptr) {
    if (Status* status = node.api.attribute(info, of(op).float_attribute, &node.epsilon)) return status;
  }
  if (of(op).int_attribute != nullptr) {
    std::int64_t heads = 0;
    if (Status* status = node.api.attribute(info, of(op).int_attribute, &heads)) return status;
    if (heads < 1) return node.api.fail("num_heads must be 1 or more");
    node.num_heads = static_cast<std::size_t>(heads);
  }
  *out = instance.release();
  return nullptr;
}

Status* run(void* kernel, KernelContext* context) {
  const auto& instance = *static_cast<const Instance*>(kernel);
  try {
    return instance.compute(Call(instance.node, context));
  } catch (const std::bad_alloc&) {
    return instance.node.api.fail("out of memory");
  }
}

Operator make(const char* name, Compute compute, std::size_t inputs, std::size_t int_input, const char* float_attribute,
              const char* int_attribute) {
  Operator op{{}, name, compute, inputs, int_input, float_attribute, int_attribute};
  op.GetName = [](const CustomOp* self) { return of(self).name; };
  op.GetExecutionProviderType = [](const CustomOp*) -> const char* { return "CPUExecutionProvider"; };
  op.GetInputTypeCount = [](const CustomOp* self) { return of(self).inputs; };
  op.GetInputType = [](const CustomOp* self, std::size_t i) { return i == of(self).int_input ? kInt32 : kFloat; };
  op.GetOutputTypeCount = [](const CustomOp*) -> std::size_t { return 1; };
  op.GetOutputType = [](const CustomOp*, std::size_t) { return kFloat; };
  op.GetInputCharacteristic = [](const CustomOp*, std::size_t) { return 0; };   // required
  op.GetOutputCharacteristic = [](const CustomOp*, std::size_t) { return 0; };  // required
  op.GetInputMemoryType = [](const CustomOp*, std::size_t) { return 0; };       // where the provider has it
  op.CreateKernelV2 = create;
  op.KernelComputeV2 = run;
  op.KernelDestroy = [](void* kernel) { delete static_cast<Instance*>(kernel); };
  op.GetStartVersion = [](const CustomOp*) { return 1; };
  op.GetEndVersion = [](const CustomOp*) { return 0x7fffffff; };
  return op;
}

// ONNX Runtime keeps pointers to the domain and the operators for as long as any session lives.
Status* make_domain(const Api& api, Domain*& domain) {
  static const std::array<Operator, 4> operators{
      make("PackedAttention", packed_attention, 4, 3, nullptr, "num_heads"),
      make("AddLayerNorm", add_layer_norm, 4, 4, "epsilon", nullptr),
      make("Gelu", gelu, 1, 1, nullptr, nullptr),
      make("MeanPool", mean_pool, 2, 1, nullptr, nullptr),
  };
  if (Status* status = api.create_domain("bgert", &domain)) return status;
  for (const Operator& op : operators) {
    if (Status* status = api.add_op(domain, &op)) return status;
  }
  return nullptr;
}

Status* register_all(SessionOptions* options, const ApiBase* base) {
  const Table table = base->GetApi(kApiVersion);
  if (table == nullptr) return nullptr;  // ONNX Runtime is older than 1.20, and will refuse the graph's operators
  const Api api(table);
  const Kernels* kernels = choose_kernels(std::getenv("BGERT_KERNELS"));
  if (kernels == nullptr) return api.fail("BGERT_KERNELS names kernels that this processor or build does not have");
  g_kernels = kernels;
  static Domain* domain = nullptr;
  static Status* const made = make_domain(api, domain);
  return made != nullptr ? made : api.add_domain(options, domain);
}

}  // namespace
}  // namespace bgert::ort

#if defined(_WIN32)
#define BGERT_EXPORT __declspec(dllexport)
#else
#define BGERT_EXPORT __attribute__((visibility("default")))
#endif

extern "C" BGERT_EXPORT bgert::ort::Status* RegisterCustomOps(bgert::ort::SessionOptions* options,
                                                              const bgert::ort::ApiBase* base) {
  return bgert::ort::register_all(options, base);
}

// Which kernels the last session to be opened has: baseline, avx2 or avx512.
extern "C" BGERT_EXPORT const char* bgert_kernels_name() {
  const bgert::Kernels* kernels = bgert::ort::g_kernels;
  return kernels == nullptr ? "" : kernels->name;
}
