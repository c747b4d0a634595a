// The operators of domain `bgert` for ONNX Runtime's CUDA provider, for `register_custom_ops_library`. A new operator is
// one line of `make_domain`, a function in operators.h, and its kernels in `kernels`.
#include <array>
#include <cmath>
#include <cstring>
#include <exception>
#include <memory>

#include "fp8_operators.h"
#include "operators.h"

namespace bgert::ort {
namespace {

using cuda::Call;
using cuda::Node;

using Compute = void (*)(const Call&);

struct Operator : CustomOp {
  const char* name;
  Compute compute;
  const char* inputs;  // a letter for each tensor's type, see type_of
  const char* outputs;
  std::array<const char*, 2> attributes;
};

ElementType type_of(char letter) {
  switch (letter) {
    case 'i':
      return kInt32;
    case 'f':
      return kFloat;
    case 'u':
      return kUint8;
    default:
      return kFloat16;
  }
}

const Operator& of(const CustomOp* op) { return *static_cast<const Operator*>(op); }

struct Instance {
  Instance(const Api& api, const Operator& op) : node(api, cuda::Device::current(), op.name), compute(op.compute) {}

  Node node;
  Compute compute;
};

// Runs what may throw; the status that tells ONNX Runtime so.
template <class Function>
Status* guarded(const Api& api, const Function& function) {
  try {
    function();
    return nullptr;
  } catch (const cuda::Refused& refused) {
    return refused.status;
  } catch (const std::exception& error) {
    return api.fail(error.what());
  }
}

void read_attribute(Node& node, const KernelInfo* info, const char* name) {
  if (std::strcmp(name, "epsilon") == 0) {
    cuda::must(node.api.attribute(info, name, &node.epsilon));
    if (!(node.epsilon >= 0.0f && std::isfinite(node.epsilon))) throw cuda::Failure("epsilon must be 0 or more");
    return;
  }
  std::int64_t& value = std::strcmp(name, "num_heads") == 0     ? node.num_heads
                        : std::strcmp(name, "rows_a_type") == 0 ? node.rows_a_type
                        : std::strcmp(name, "mean") == 0        ? node.mean
                        : std::strcmp(name, "least_tokens") == 0 ? node.least_tokens
                                                                : node.normalize;
  cuda::must(node.api.attribute(info, name, &value));
  if (value < 0 || value > 65535 || (&value == &node.num_heads && value < 1)) {
    throw cuda::Failure(std::string(name) + " is out of its range");
  }
}

Status* create(const CustomOp* op, Table table, const KernelInfo* info, void** out) {
  const Api api(table);
  return guarded(api, [&] {
    auto instance = std::make_unique<Instance>(api, of(op));
    if (std::strstr(of(op).name, "Fp8") != nullptr) cuda::require_fp8(instance->node.device);
    for (const char* name : of(op).attributes) {
      if (name != nullptr) read_attribute(instance->node, info, name);
    }
    *out = instance.release();
  });
}

Status* run(void* kernel, KernelContext* context) {
  auto& instance = *static_cast<Instance*>(kernel);
  return guarded(instance.node.api, [&] { instance.compute(Call(instance.node, context)); });
}

Operator make(const char* name, Compute compute, const char* inputs, const char* outputs,
              std::array<const char*, 2> attributes = {}) {
  Operator op{{}, name, compute, inputs, outputs, attributes};
  op.GetName = [](const CustomOp* self) { return of(self).name; };
  op.GetExecutionProviderType = [](const CustomOp*) -> const char* { return "CUDAExecutionProvider"; };
  op.GetInputTypeCount = [](const CustomOp* self) { return std::strlen(of(self).inputs); };
  op.GetInputType = [](const CustomOp* self, std::size_t i) { return type_of(of(self).inputs[i]); };
  op.GetOutputTypeCount = [](const CustomOp* self) { return std::strlen(of(self).outputs); };
  op.GetOutputType = [](const CustomOp* self, std::size_t i) { return type_of(of(self).outputs[i]); };
  op.GetInputCharacteristic = [](const CustomOp*, std::size_t) { return 0; };   // required
  op.GetOutputCharacteristic = [](const CustomOp*, std::size_t) { return 0; };  // required
  op.GetInputMemoryType = [](const CustomOp*, std::size_t) { return 0; };       // on the device
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
      make("EmbeddingLayerNormFp16", cuda::embedding_layer_norm, "iihhhh", "h", {"epsilon"}),
      make("TypedEmbeddingLayerNormFp16", cuda::typed_embedding_layer_norm, "iihhhhi", "h", {"epsilon", "rows_a_type"}),
      make("AddLayerNormFp16", cuda::add_layer_norm, "hhhh", "h", {"epsilon"}),
      make("LinearFp16", cuda::linear, "hhh", "h"),
      make("LinearGeluFp16", cuda::linear_gelu, "hhh", "h"),
      make("LinearGeluTanhFp16", cuda::linear_gelu_tanh, "hhh", "h"),
      make("AttentionTiles", cuda::attention_tiles, "ii", "i"),
      make("PackedSelfAttentionFp16", cuda::packed_self_attention, "hii", "h", {"num_heads"}),
      make("FirstTokenAttentionFp16", cuda::first_token_attention, "hhi", "h", {"num_heads"}),
      make("FirstRowsFp16", cuda::first_rows, "hi", "h"),
      make("QuantizeFp8", cuda::quantize_fp8, "h", "uf", {"least_tokens"}),
      make("AddLayerNormFp8", cuda::add_layer_norm_fp8, "hhhh", "huf", {"epsilon", "least_tokens"}),
      make("GeluFp8", cuda::gelu_fp8, "h", "huf", {"least_tokens"}),
      make("GeluFp16", cuda::gelu_fp16, "h", "h"),
      make("LinearFp8", cuda::linear_fp8, "ufhufhh", "h"),
      make("PoolFp16", cuda::pool, "hi", "f", {"mean", "normalize"}),
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
  static Domain* domain = nullptr;
  static Status* const made = make_domain(api, domain);
  return made != nullptr ? made : api.add_domain(options, domain);
}

}  // namespace
}  // namespace bgert::ort

extern "C" __attribute__((visibility("default"))) bgert::ort::Status* RegisterCustomOps(
    bgert::ort::SessionOptions* options, const bgert::ort::ApiBase* base) {
  return bgert::ort::register_all(options, base);
}

// Which compiled kernels a device of this compute capability (90 for 9.0) takes; "" where it takes none.
extern "C" __attribute__((visibility("default"))) const char* bgert_cuda_code(int capability) {
  const char* name = "";
  try {
    bgert::cuda::code_for(capability, name);
  } catch (const std::exception&) {
    return "";
  }
  return name;
}
