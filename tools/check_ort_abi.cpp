// Compares runtime/src/cpu_ops/ort_abi.h with ONNX Runtime's own header, where that is at hand:
//   c++ -std=c++20 -fsyntax-only -Iruntime/src/cpu_ops -I/usr/include/onnxruntime tools/check_ort_abi.cpp
#include <onnxruntime_c_api.h>

#include <cstddef>

#include "ort_abi.h"

using namespace bgert::ort;

#define PLACE(PLACE_HERE, NAME) \
  static_assert(offsetof(OrtApi, NAME) == static_cast<std::size_t>(PLACE_HERE) * sizeof(void*), #NAME)
PLACE(kCreateStatus, CreateStatus);
PLACE(kGetTensorMutableData, GetTensorMutableData);
PLACE(kGetDimensionsCount, GetDimensionsCount);
PLACE(kGetDimensions, GetDimensions);
PLACE(kGetTensorTypeAndShape, GetTensorTypeAndShape);
PLACE(kCreateCustomOpDomain, CreateCustomOpDomain);
PLACE(kCustomOpDomainAdd, CustomOpDomain_Add);
PLACE(kAddCustomOpDomain, AddCustomOpDomain);
PLACE(kKernelInfoGetAttributeFloat, KernelInfoGetAttribute_float);
PLACE(kKernelInfoGetAttributeInt64, KernelInfoGetAttribute_int64);
PLACE(kKernelContextGetInput, KernelContext_GetInput);
PLACE(kKernelContextGetOutput, KernelContext_GetOutput);
PLACE(kReleaseTensorTypeAndShapeInfo, ReleaseTensorTypeAndShapeInfo);
PLACE(kKernelContextGetGPUComputeStream, KernelContext_GetGPUComputeStream);
PLACE(kKernelContextParallelFor, KernelContext_ParallelFor);

#define SLOT(NAME) static_assert(offsetof(CustomOp, NAME) == offsetof(OrtCustomOp, NAME), #NAME)
SLOT(version);
SLOT(CreateKernel);
SLOT(GetName);
SLOT(GetExecutionProviderType);
SLOT(GetInputType);
SLOT(GetInputTypeCount);
SLOT(GetOutputType);
SLOT(GetOutputTypeCount);
SLOT(KernelCompute);
SLOT(KernelDestroy);
SLOT(GetInputCharacteristic);
SLOT(GetOutputCharacteristic);
SLOT(GetInputMemoryType);
SLOT(CreateKernelV2);
SLOT(KernelComputeV2);
SLOT(InferOutputShapeFn);
SLOT(GetStartVersion);
SLOT(GetEndVersion);
SLOT(GetMayInplace);
SLOT(ReleaseMayInplace);
SLOT(GetAliasMap);
SLOT(ReleaseAliasMap);
static_assert(sizeof(CustomOp) == sizeof(OrtCustomOp));
static_assert(kFloat == static_cast<int>(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT));
static_assert(kInt32 == static_cast<int>(ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32));
static_assert(kFloat16 == static_cast<int>(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16));
static_assert(kUint8 == static_cast<int>(ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8));
