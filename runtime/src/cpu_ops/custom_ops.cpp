// The operators of domain `bgert`, for ONNX Runtime's `register_custom_ops_library`.
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "call.h"
#include "local_attention.h"
#include "operators.h"

namespace bgert::ort {
namespace {

std::atomic<const Kernels*> g_kernels = nullptr;

constexpr const char* kHeads = "num_heads";
constexpr const char* kEpsilon = "epsilon";
constexpr const char* kWindow = "window";

struct Operator : CustomOp {
  const char* name;
  Compute compute;
  const char* inputs;   // a letter for each tensor's type, see type_of
  const char* outputs;
  const char* attribute;  // `window` comes with `num_heads`
};

ElementType type_of(char letter) {
  switch (letter) {
    case 'h':
      return kBfloat16;
    case 'b':
      return kUint8;
    case 's':
      return kInt8;
    case 'i':
      return kInt32;
    default:
      return kFloat;
  }
}

const Operator& of(const CustomOp* op) { return *static_cast<const Operator*>(op); }

struct Instance {
  Node node;
  Compute compute;
};

Status* create(const CustomOp* op, Table table, const KernelInfo* info, void** out) {
  std::unique_ptr<Instance> instance(new (std::nothrow) Instance{Node{Api(table), g_kernels, std::strlen(of(op).inputs)}, of(op).compute});
  if (instance == nullptr) return Api(table).fail(kNoMemory);
  Node& node = instance->node;
  node.seen = std::strcmp(of(op).inputs, "fffii") == 0;
  if (of(op).attribute == kEpsilon) {
    if (Status* status = node.api.attribute(info, kEpsilon, &node.epsilon)) return status;
    if (!(node.epsilon >= 0.0f && std::isfinite(node.epsilon))) return node.api.fail("epsilon must be 0 or more");
  } else if (of(op).attribute == kHeads || of(op).attribute == kWindow) {
    std::int64_t heads = 0;
    if (Status* status = node.api.attribute(info, kHeads, &heads)) return status;
    if (heads < 1) return node.api.fail("num_heads must be 1 or more");
    node.num_heads = static_cast<std::size_t>(heads);
  }
  if (of(op).attribute == kWindow) {
    std::int64_t window = 0;
    if (Status* status = node.api.attribute(info, kWindow, &window)) return status;
    if (window < 1 || window > static_cast<std::int64_t>(LocalAttention::kMostWindow)) {
      return node.api.fail("window must be from 1 to 2^20");
    }
    node.window = static_cast<std::size_t>(window);
  }
  *out = instance.release();
  return nullptr;
}

Status* run(void* kernel, KernelContext* context) {
  const auto& instance = *static_cast<const Instance*>(kernel);
  try {
    return instance.compute(Call(instance.node, context));
  } catch (const std::bad_alloc&) {
    return instance.node.api.fail(kNoMemory);
  }
}

Operator make(const char* name, Compute compute, const char* inputs, const char* outputs,
              const char* attribute = nullptr) {
  Operator op{{}, name, compute, inputs, outputs, attribute};
  op.GetName = [](const CustomOp* self) { return of(self).name; };
  op.GetExecutionProviderType = [](const CustomOp*) -> const char* { return "CPUExecutionProvider"; };
  op.GetInputTypeCount = [](const CustomOp* self) { return std::strlen(of(self).inputs); };
  op.GetInputType = [](const CustomOp* self, std::size_t i) { return type_of(of(self).inputs[i]); };
  op.GetOutputTypeCount = [](const CustomOp* self) { return std::strlen(of(self).outputs); };
  op.GetOutputType = [](const CustomOp* self, std::size_t i) { return type_of(of(self).outputs[i]); };
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
  static const std::array operators{
      make("PackedAttention", packed_attention, "fffi", "f", kHeads),
      make("PackedAttentionBf16", packed_attention_bf16, "fffi", "h", kHeads),
      make("PackedAttentionInt8", packed_attention_int8, "fffi", "b", kHeads),
      make("PackedRelativeAttention", packed_attention, "fffif", "f", kHeads),
      make("PackedRelativeAttentionBf16", packed_attention_bf16, "fffif", "h", kHeads),
      make("PackedRelativeAttentionInt8", packed_attention_int8, "fffif", "b", kHeads),
      make("PackedLocalAttention", packed_attention, "fffi", "f", kWindow),
      make("PackedLocalAttentionBf16", packed_attention_bf16, "fffi", "h", kWindow),
      make("PackedLocalAttentionInt8", packed_attention_int8, "fffi", "b", kWindow),
      make("PackedSeenAttention", packed_attention, "fffii", "f", kHeads),
      make("PackedSeenAttentionBf16", packed_attention_bf16, "fffii", "h", kHeads),
      make("PackedSeenAttentionInt8", packed_attention_int8, "fffii", "b", kHeads),
      make("PackedLocalSeenAttention", packed_attention, "fffii", "f", kWindow),
      make("PackedLocalSeenAttentionBf16", packed_attention_bf16, "fffii", "h", kWindow),
      make("PackedLocalSeenAttentionInt8", packed_attention_int8, "fffii", "b", kWindow),
      make("AddLayerNorm", add_layer_norm, "ffff", "f", kEpsilon),
      make("AddLayerNormBf16", add_layer_norm_bf16, "ffff", "fh", kEpsilon),
      make("AddLayerNormInt8", add_layer_norm_int8, "fffff", "fb", kEpsilon),
      make("Rotary", rotary, "fif", "f"),
      make("Gelu", gelu, "f", "f"),
      make("MeanPool", mean_pool, "fi", "f"),
      make("MaxPool", max_pool, "fi", "f"),
      make("LinearFp32", linear_fp32, "fff", "f"),
      make("LinearGeluFp32", linear_gelu_fp32, "fff", "f"),
      make("LinearBf16", linear_bf16, "hhf", "f"),
      make("LinearGeluBf16", linear_gelu_bf16, "hhf", "h"),
      make("LinearInt8", linear_int8, "bsfif", "f"),
      make("LinearGeluInt8", linear_gelu_int8, "bsfiff", "b"),
      make("LinearGegluFp32", linear_geglu_fp32, "fff", "f"),
      make("LinearSwigluFp32", linear_swiglu_fp32, "fff", "f"),
      make("LinearGegluBf16", linear_geglu_bf16, "hhf", "h"),
      make("LinearSwigluBf16", linear_swiglu_bf16, "hhf", "h"),
      make("LinearGegluInt8", linear_geglu_int8, "bsfiff", "b"),
      make("LinearSwigluInt8", linear_swiglu_int8, "bsfiff", "b"),
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

// Which kernels the last session to be opened has, before one which it would get: see choose.cpp for their names.
extern "C" BGERT_EXPORT const char* bgert_kernels_name() {
  const bgert::Kernels* kernels = bgert::ort::g_kernels;
  if (kernels == nullptr) kernels = bgert::choose_kernels(std::getenv("BGERT_KERNELS"));
  return kernels == nullptr ? "" : kernels->name;
}
