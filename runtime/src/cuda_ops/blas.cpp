#include "blas.h"

#include <dlfcn.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

namespace bgert::cuda {
namespace {

constexpr int kCompute32F = 68;
constexpr int kCandidates = 8;
constexpr std::int64_t kFewRows = 1024;  // their weights come from memory in a model, and from the cache in a loop
enum OperationAttribute : int { kTransposeA = 3, kTransposeB = 4, kEpilogue = 7, kBiasPointer = 8, kScaleA = 17, kScaleB = 18,
                                kScaleModeA = 31, kScaleModeB = 32 };
constexpr std::int32_t kScaleOfEachRow = 3;  // CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F: compute capability 9.0 alone
constexpr int kMostWorkspace = 1;

void check_blas(int status, const char* call) {
  if (status == 0) return;
  const char* name = status == 3 ? "CUBLAS_STATUS_ALLOC_FAILED" : "";
  throw Failure(std::string(call) + " failed with status " + std::to_string(status) + " " + name);
}

class Event {
 public:
  Event() { check(driver().cuEventCreate(&event_, 0), "cuEventCreate"); }
  ~Event() { driver().cuEventDestroy_v2(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(Stream stream) const { check(driver().cuEventRecord(event_, stream), "cuEventRecord"); }
  float since(const Event& earlier) const {
    check(driver().cuEventSynchronize(event_), "cuEventSynchronize");
    float milliseconds = 0.0f;
    check(driver().cuEventElapsedTime(&milliseconds, earlier.event_, event_), "cuEventElapsedTime");
    return milliseconds;
  }

 private:
  void* event_ = nullptr;
};

bool is_capturing(Stream stream) {
  int status = 0;
  check(driver().cuStreamIsCapturing(stream, &status), "cuStreamIsCapturing");
  return status != 0;
}

}  // namespace

std::int64_t bucket_of(std::int64_t rows) {
  std::int64_t bucket = 16;
  while (bucket < rows) bucket *= 2;
  return bucket;
}

std::shared_ptr<Memory> workspace_of(int device, Stream stream) {
  static std::mutex mutex;
  static auto* const all = new std::map<std::pair<int, Stream>, std::weak_ptr<Memory>>;
  const std::lock_guard lock(mutex);
  std::weak_ptr<Memory>& known = (*all)[{device, stream}];
  std::shared_ptr<Memory> memory = known.lock();
  if (memory == nullptr) {
    if (is_capturing(stream)) throw Failure("a CUDA graph is captured before the same shape ran once");
    memory = std::make_shared<Memory>(kWorkspace);
    known = memory;
  }
  return memory;
}

Description::Description(Blas& on, const Shape& of) : blas(on), shape(of) {
  const int transposed = 1, plain = 0;
  check_blas(blas.create_operation(&operation, kCompute32F, kRealFloat32), "cublasLtMatmulDescCreate");
  const auto set = [&](OperationAttribute attribute, const void* value, std::size_t size) {
    check_blas(blas.set_operation(operation, attribute, value, size), "cublasLtMatmulDescSetAttribute");
  };
  set(kTransposeA, &transposed, sizeof transposed);
  set(kTransposeB, &plain, sizeof plain);
  set(kEpilogue, &shape.epilogue, sizeof shape.epilogue);
  if (shape.kind == kFp8Scaled) {
    set(kScaleModeA, &kScaleOfEachRow, sizeof kScaleOfEachRow);
    set(kScaleModeB, &kScaleOfEachRow, sizeof kScaleOfEachRow);
  }
  // cuBLAS sees columns where rows lie in memory.
  const auto rows = static_cast<std::uint64_t>(shape.rows), inputs = static_cast<std::uint64_t>(shape.inputs),
             outputs = static_cast<std::uint64_t>(shape.outputs);
  const auto layout = [&](void** to, DataType type, std::uint64_t inner, std::uint64_t outer) {
    check_blas(blas.create_layout(to, type, inner, outer, static_cast<std::int64_t>(inner)),
               "cublasLtMatrixLayoutCreate");
  };
  const DataType type = shape.kind == kHalf ? kRealFloat16 : kRealE4m3;
  layout(&weights, type, inputs, outputs);
  layout(&x, type, inputs, rows);
  layout(&y, kRealFloat16, outputs, rows);
}

Description::~Description() {
  for (void* layout : {weights, x, y}) {
    if (layout != nullptr) blas.destroy_layout(layout);
  }
  if (operation != nullptr) blas.destroy_operation(operation);
}

Blas::Blas() {
  // ONNX Runtime's CUDA provider needs it, so it is loaded.
  void* library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_NOLOAD);
  if (library == nullptr) {
    throw Failure("libcublasLt.so.13 is not loaded: bgert's CUDA operators need an ONNX Runtime for CUDA 13");
  }
  const auto find = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr) throw Failure(std::string("libcublasLt.so.13 has no ") + name);
  };
  find("cublasLtCreate", create);
  find("cublasLtMatmulDescCreate", create_operation);
  find("cublasLtMatmulDescSetAttribute", set_operation);
  find("cublasLtMatmulDescDestroy", destroy_operation);
  find("cublasLtMatrixLayoutCreate", create_layout);
  find("cublasLtMatrixLayoutDestroy", destroy_layout);
  find("cublasLtMatmulPreferenceCreate", create_preference);
  find("cublasLtMatmulPreferenceSetAttribute", set_preference);
  find("cublasLtMatmulPreferenceDestroy", destroy_preference);
  find("cublasLtMatmulAlgoGetHeuristic", heuristics);
  find("cublasLtMatmulAlgoCheck", check_algorithm);
  find("cublasLtMatmul", matmul);
  check_blas(create(&handle_), "cublasLtCreate");
}

void Blas::multiply(Description& description, const Operands& operands, Device& device, Stream stream,
                    Address workspace) {
  const auto set = [&](OperationAttribute attribute, const void* const& pointer) {
    check_blas(set_operation(description.operation, attribute, &pointer, sizeof pointer),
               "cublasLtMatmulDescSetAttribute");
  };
  if (description.shape.epilogue != kNone) set(kBiasPointer, operands.bias);
  if (description.shape.kind == kFp8Scaled) {
    set(kScaleA, operands.weight_scales);
    set(kScaleB, operands.x_scales);
  }
  if (!description.chosen) choose(description, operands, device, stream, workspace);
  check_blas(queue(description, operands, description.algorithm, stream, workspace), "cublasLtMatmul");
}

void Blas::choose(Description& of, const Operands& operands, Device& device, Stream stream, Address workspace) {
  const Bucket bucket{bucket_of(of.shape.rows), of.shape.inputs, of.shape.outputs, of.shape.epilogue,
                      of.shape.kind};
  const std::lock_guard lock(mutex_);
  const auto known = timed_.find(bucket);
  if (known != timed_.end()) {
    Candidate result{};
    if (check_algorithm(handle_, of.operation, of.weights, of.x, of.y, of.y, &known->second, &result) == 0 &&
        result.workspace <= kWorkspace) {
      of.algorithm = known->second;
      of.chosen = true;
      return;
    }
  }
  void* preference = nullptr;
  check_blas(create_preference(&preference), "cublasLtMatmulPreferenceCreate");
  const std::uint64_t most = kWorkspace;
  std::vector<Candidate> candidates(kCandidates);
  int count = 0;
  int status = set_preference(preference, kMostWorkspace, &most, sizeof most);
  if (status == 0) {
    status = heuristics(handle_, of.operation, of.weights, of.x, of.y, of.y, preference, kCandidates,
                        candidates.data(), &count);
  }
  destroy_preference(preference);
  check_blas(status, "cublasLtMatmulAlgoGetHeuristic");
  if (count < 1) throw Failure("cuBLAS has no algorithm for a product that a graph asks for");
  of.algorithm = candidates[0].algorithm;
  if (is_capturing(stream)) return;  // this time: the next plain run chooses
  of.chosen = true;
  if (known != timed_.end()) return;
  std::unique_ptr<Memory> flush;
  if (of.shape.rows <= kFewRows && device.cache_size() > 0) {
    try {
      flush = std::make_unique<Memory>(2 * device.cache_size());
    } catch (const Failure&) {  // memory is short: timed with weights in the cache
    }
  }
  float best = std::numeric_limits<float>::infinity();
  for (int i = 0; i < count; ++i) {
    const float found = time(of, operands, candidates[static_cast<std::size_t>(i)].algorithm, device, stream, workspace,
                             flush.get());
    if (found < best) {
      best = found;
      of.algorithm = candidates[static_cast<std::size_t>(i)].algorithm;
    }
  }
  timed_[bucket] = of.algorithm;
}

// The least of some runs, infinite where it does not run; the first loads its code.
float Blas::time(const Description& of, const Operands& operands, const Algorithm& algorithm, Device& device,
                 Stream stream, Address workspace, const Memory* flush) {
  const Event before, after;
  const int runs = of.shape.rows <= kFewRows ? 6 : 4;
  float best = std::numeric_limits<float>::infinity();
  for (int run = 0; run < runs; ++run) {
    if (flush != nullptr) {
      check(driver().cuMemsetD8Async(flush->address(), 0, 2 * device.cache_size(), stream), "cuMemsetD8Async");
    }
    before.record(stream);
    if (queue(of, operands, algorithm, stream, workspace) != 0) return std::numeric_limits<float>::infinity();
    after.record(stream);
    const float found = after.since(before);
    if (run > 0) best = std::min(best, found);
  }
  return best;
}

int Blas::queue(const Description& of, const Operands& operands, const Algorithm& algorithm, Stream stream,
                Address workspace) {
  const float zero = 0.0f;
  return matmul(handle_, of.operation, &of.shape.factor, operands.weights, of.weights, operands.x, of.x, &zero, operands.y, of.y,
                operands.y, of.y, &algorithm, reinterpret_cast<void*>(workspace), kWorkspace, stream);
}

}  // namespace bgert::cuda
