// Stands for libcuda without a GPU, as far as bgert's CUDA operators use it: their kernels are compiled into it and run in
// the emulator. A launch into a captured stream is kept by cudart.c and run when the graph is launched.
#define BGERT_EMULATED
#include "all.cu"

#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <tuple>

extern "C" void fake_cuda_submit(void (*run)(void*), void* data);
extern "C" int fake_cuda_capturing();

namespace {

using Work = std::function<void()>;
using Bind = std::function<Work(void**)>;

// A kernel whose arguments are copied when it is launched, as CUDA does.
template <class... Arguments>
Bind bound(void (*kernel)(Arguments...)) {
  return [kernel](void** from) -> Work {
    const auto values = [&]<std::size_t... I>(std::index_sequence<I...>) {
      return std::tuple<Arguments...>(*static_cast<Arguments*>(from[I])...);
    }(std::index_sequence_for<Arguments...>());
    return [kernel, values] { std::apply(kernel, values); };
  };
}

#define ENTRY(NAME) {#NAME, bound(&NAME)}
// One line a kernel; one that is missing fails where it is asked for.
const std::map<std::string, Bind>& kernels() {
  static const std::map<std::string, Bind> all{
      ENTRY(add_layer_norm_w1_v1),       ENTRY(add_layer_norm_w1_v2),       ENTRY(add_layer_norm_w1_v3),
      ENTRY(add_layer_norm_w1_v4),       ENTRY(add_layer_norm_w4_v1),       ENTRY(add_layer_norm_w4_v2),
      ENTRY(add_layer_norm_w4_v4),       ENTRY(embedding_layer_norm_w1_v1), ENTRY(embedding_layer_norm_w1_v2),
      ENTRY(embedding_layer_norm_w1_v3), ENTRY(embedding_layer_norm_w1_v4), ENTRY(embedding_layer_norm_w4_v1),
      ENTRY(embedding_layer_norm_w4_v2), ENTRY(embedding_layer_norm_w4_v4), ENTRY(attention_h32_q64),
      ENTRY(attention_h32_q128),         ENTRY(attention_h64_q64),          ENTRY(attention_h64_q128),
      ENTRY(attention_tiles),            ENTRY(first_token_attention_h32),  ENTRY(first_token_attention_h64),
      ENTRY(first_rows),                 ENTRY(gelu),                       ENTRY(pool),
      ENTRY(quantize_fp8_v1),            ENTRY(quantize_fp8_v2),            ENTRY(quantize_fp8_v3),
      ENTRY(quantize_fp8_v4),            ENTRY(quantize_fp8_v6),            ENTRY(quantize_fp8_v8),
      ENTRY(quantize_fp8_v12),           ENTRY(quantize_fp8_v16),           ENTRY(gelu_fp8_v1),
      ENTRY(gelu_fp8_v2),                ENTRY(gelu_fp8_v3),                ENTRY(gelu_fp8_v4),
      ENTRY(gelu_fp8_v6),                ENTRY(gelu_fp8_v8),                ENTRY(gelu_fp8_v12),
      ENTRY(gelu_fp8_v16),               ENTRY(add_layer_norm_fp8_v1),      ENTRY(add_layer_norm_fp8_v2),
      ENTRY(add_layer_norm_fp8_v3),      ENTRY(add_layer_norm_fp8_v4),      ENTRY(scale_product),
      ENTRY(gelu_rows),
  };
  return all;
}

}  // namespace

extern "C" {

int cuCtxGetDevice(int* device) { return *device = 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  const char* processors = std::getenv("FAKE_CUDA_PROCESSORS");  // fewer, and few rows are many
  *value = attribute == 75   ? FAKE_SM / 10
           : attribute == 76 ? FAKE_SM % 10
           : attribute == 16 ? (processors != nullptr ? std::atoi(processors) : 132)
           : attribute == 38 ? 1 << 16
                             : 0;
  return 0;
}
int cuGetErrorName(int code, const char** name) {
  *name = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : code == 500 ? "CUDA_ERROR_NOT_FOUND" : "CUDA_ERROR_UNKNOWN";
  return 0;
}
int cuLibraryLoadData(void** library, const void* code, void*, void*, unsigned, void*, void*, unsigned) {
  // Machine code is an ELF file, PTX is text.
  const auto* bytes = static_cast<const unsigned char*>(code);
  if (std::string(reinterpret_cast<const char*>(bytes), 4) != "\x7f" "ELF" && bytes[0] != '/') return 200;
  *library = const_cast<void*>(code);
  return 0;
}
int cuLibraryGetKernel(void** kernel, void*, const char* name) {
  const auto found = kernels().find(name);
  if (found == kernels().end()) return 500;
  *kernel = const_cast<Bind*>(&found->second);
  return 0;
}
int cuLaunchKernel(void* kernel, unsigned grid_x, unsigned grid_y, unsigned, unsigned threads, unsigned, unsigned,
                   unsigned shared, void*, void** arguments, void**) {
  if (shared > 48 << 10) return 1;
  const Work work = (*static_cast<Bind*>(kernel))(arguments);
  const auto x = static_cast<int>(grid_x), y = static_cast<int>(grid_y), size = static_cast<int>(threads);
  auto* kept = new Work([=] { emulator::run_grid(x, y, size, shared, work); });
  fake_cuda_submit([](void* data) { (*static_cast<Work*>(data))(); }, kept);
  return 0;
}
int cuStreamIsCapturing(void*, int* status) {
  *status = fake_cuda_capturing();
  return 0;
}
int cuStreamSynchronize(void*) { return 0; }
int cuMemAlloc_v2(unsigned long long* address, std::size_t size) {
  if (fake_cuda_capturing()) return 900;
  void* memory = nullptr;
  if (posix_memalign(&memory, 4096, size) != 0) return 2;
  *address = reinterpret_cast<unsigned long long>(memory);
  return 0;
}
int cuMemFree_v2(unsigned long long address) {
  std::free(reinterpret_cast<void*>(address));
  return 0;
}
int cuMemsetD8Async(unsigned long long address, unsigned char value, std::size_t size, void*) {
  std::memset(reinterpret_cast<void*>(address), value, size);
  return 0;
}
int cuEventCreate(void** event, unsigned) {
  *event = std::malloc(1);
  return 0;
}
int cuEventRecord(void*, void*) { return fake_cuda_capturing() ? 900 : 0; }  // what is timed is not captured
int cuEventSynchronize(void*) { return fake_cuda_capturing() ? 900 : 0; }
int cuEventElapsedTime(float* milliseconds, void*, void*) {
  *milliseconds = 1.0f;
  return 0;
}
int cuEventDestroy_v2(void* event) {
  std::free(event);
  return 0;
}

// For tests of kernels alone, without ONNX Runtime.
int bgert_emulate(const char* kernel, int grid_x, int grid_y, int threads, int shared, void** arguments) {
  const auto found = kernels().find(kernel);
  if (found == kernels().end()) return 500;
  emulator::run_grid(grid_x, grid_y, threads, static_cast<std::size_t>(shared), found->second(arguments));
  return 0;
}
}
