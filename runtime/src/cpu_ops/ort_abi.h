// The part of ONNX Runtime's C interface that a library of custom operators needs.
//
// ONNX Runtime passes a table of functions whose places never change: new ones are added at the end. So a place, the
// function's type and the release that brought it are all one needs, and bgert builds without ONNX Runtime's headers.
// Places were read from onnxruntime_c_api.h of 1.21 (`offsetof`); tools/check_ort_abi.cpp checks them against a header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bgert::ort {

// 1.20, the oldest release that bgert supports: no place below is younger.
constexpr std::uint32_t kApiVersion = 20;

struct Status;
struct KernelInfo;
struct KernelContext;
struct Value;
struct TensorInfo;
struct Domain;
struct SessionOptions;
struct CustomOp;

using Table = void (*const*)();

struct ApiBase {
  Table (*GetApi)(std::uint32_t version);
  const char* (*GetVersionString)();
};

enum Place : std::size_t {
  kCreateStatus = 0,
  kGetTensorMutableData = 51,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetTensorTypeAndShape = 65,
  kCreateCustomOpDomain = 26,
  kCustomOpDomainAdd = 27,
  kAddCustomOpDomain = 28,
  kKernelInfoGetAttributeFloat = 85,
  kKernelInfoGetAttributeInt64 = 86,
  kKernelContextGetInput = 90,
  kKernelContextGetOutput = 91,
  kReleaseTensorTypeAndShapeInfo = 99,
  kKernelContextGetGPUComputeStream = 193,  // since 1.17
  kKernelContextParallelFor = 274,          // since 1.17
};

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };
enum ElementType : int { kFloat = 1, kUint8 = 2, kInt8 = 3, kInt32 = 6, kFloat16 = 10, kBfloat16 = 16 };

// OrtCustomOp: callbacks that describe an operator. Null where ONNX Runtime has a default.
struct CustomOp {
  std::uint32_t version = kApiVersion;
  void* (*CreateKernel)(const CustomOp*, Table, const KernelInfo*) = nullptr;
  const char* (*GetName)(const CustomOp*) = nullptr;
  const char* (*GetExecutionProviderType)(const CustomOp*) = nullptr;
  ElementType (*GetInputType)(const CustomOp*, std::size_t) = nullptr;
  std::size_t (*GetInputTypeCount)(const CustomOp*) = nullptr;
  ElementType (*GetOutputType)(const CustomOp*, std::size_t) = nullptr;
  std::size_t (*GetOutputTypeCount)(const CustomOp*) = nullptr;
  void (*KernelCompute)(void*, KernelContext*) = nullptr;
  void (*KernelDestroy)(void*) = nullptr;
  int (*GetInputCharacteristic)(const CustomOp*, std::size_t) = nullptr;
  int (*GetOutputCharacteristic)(const CustomOp*, std::size_t) = nullptr;
  int (*GetInputMemoryType)(const CustomOp*, std::size_t) = nullptr;
  int (*GetVariadicInputMinArity)(const CustomOp*) = nullptr;
  int (*GetVariadicInputHomogeneity)(const CustomOp*) = nullptr;
  int (*GetVariadicOutputMinArity)(const CustomOp*) = nullptr;
  int (*GetVariadicOutputHomogeneity)(const CustomOp*) = nullptr;
  Status* (*CreateKernelV2)(const CustomOp*, Table, const KernelInfo*, void**) = nullptr;
  Status* (*KernelComputeV2)(void*, KernelContext*) = nullptr;
  Status* (*InferOutputShapeFn)(const CustomOp*, void*) = nullptr;
  int (*GetStartVersion)(const CustomOp*) = nullptr;
  int (*GetEndVersion)(const CustomOp*) = nullptr;
  std::size_t (*GetMayInplace)(int**, int**) = nullptr;
  void (*ReleaseMayInplace)(int*, int*) = nullptr;
  std::size_t (*GetAliasMap)(int**, int**) = nullptr;
  void (*ReleaseAliasMap)(int*, int*) = nullptr;
};
static_assert(sizeof(CustomOp) == 26 * sizeof(void*));

// Typed calls through the table. Whatever returns a Status* returns nullptr when it went well.
class Api {
 public:
  explicit Api(Table table) : table_(table) {}

  Status* fail(const char* message) const {
    return at<Status*(int, const char*)>(kCreateStatus)(kInvalidArgument, message);
  }
  Status* create_domain(const char* name, Domain** out) const {
    return at<Status*(const char*, Domain**)>(kCreateCustomOpDomain)(name, out);
  }
  Status* add_op(Domain* domain, const CustomOp* op) const {
    return at<Status*(Domain*, const CustomOp*)>(kCustomOpDomainAdd)(domain, op);
  }
  Status* add_domain(SessionOptions* options, Domain* domain) const {
    return at<Status*(SessionOptions*, Domain*)>(kAddCustomOpDomain)(options, domain);
  }
  Status* attribute(const KernelInfo* info, const char* name, float* out) const {
    return at<Status*(const KernelInfo*, const char*, float*)>(kKernelInfoGetAttributeFloat)(info, name, out);
  }
  Status* attribute(const KernelInfo* info, const char* name, std::int64_t* out) const {
    return at<Status*(const KernelInfo*, const char*, std::int64_t*)>(kKernelInfoGetAttributeInt64)(info, name, out);
  }
  Status* input(const KernelContext* context, std::size_t index, const Value** out) const {
    return at<Status*(const KernelContext*, std::size_t, const Value**)>(kKernelContextGetInput)(context, index, out);
  }
  Status* output(KernelContext* context, std::size_t index, const std::int64_t* shape, std::size_t rank,
                 Value** out) const {
    return at<Status*(KernelContext*, std::size_t, const std::int64_t*, std::size_t, Value**)>(kKernelContextGetOutput)(
        context, index, shape, rank, out);
  }
  Status* shape_of(const Value* value, TensorInfo** out) const {
    return at<Status*(const Value*, TensorInfo**)>(kGetTensorTypeAndShape)(value, out);
  }
  Status* rank(const TensorInfo* info, std::size_t* out) const {
    return at<Status*(const TensorInfo*, std::size_t*)>(kGetDimensionsCount)(info, out);
  }
  Status* dimensions(const TensorInfo* info, std::int64_t* out, std::size_t count) const {
    return at<Status*(const TensorInfo*, std::int64_t*, std::size_t)>(kGetDimensions)(info, out, count);
  }
  void release(TensorInfo* info) const { at<void(TensorInfo*)>(kReleaseTensorTypeAndShapeInfo)(info); }
  Status* data(const Value* value, void** out) const {
    return at<Status*(Value*, void**)>(kGetTensorMutableData)(const_cast<Value*>(value), out);
  }
  Status* gpu_stream(const KernelContext* context, void** out) const {
    return at<Status*(const KernelContext*, void**)>(kKernelContextGetGPUComputeStream)(context, out);
  }
  Status* parallel_for(const KernelContext* context, void (*task)(void*, std::size_t), std::size_t count,
                       void* data) const {
    return at<Status*(const KernelContext*, void (*)(void*, std::size_t), std::size_t, std::size_t, void*)>(
        kKernelContextParallelFor)(context, task, count, 0, data);
  }

 private:
  template <class Function>
  Function* at(Place place) const {
    return reinterpret_cast<Function*>(table_[place]);
  }

  Table table_;
};

}  // namespace bgert::ort
