// CUDA's driver interface, as far as operators need it: loaded when the first of them is made, by the process that has
// a GPU. So bgert builds without CUDA, and its library loads where there is none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>

namespace bgert::cuda {

using Address = std::uint64_t;  // CUdeviceptr
using Stream = void*;

// What CUDA or cuBLAS refused, in the words that bgert's Python half knows.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws Failure: "CUDA failure 2: CUDA_ERROR_OUT_OF_MEMORY in cuMemAlloc".
void check(int code, const char* call);

struct Driver {
  int (*cuCtxGetDevice)(int* device);
  int (*cuDeviceGetAttribute)(int* value, int attribute, int device);
  int (*cuGetErrorName)(int code, const char** name);
  int (*cuLibraryLoadData)(void** library, const void* code, void*, void*, unsigned, void*, void*, unsigned);
  int (*cuLibraryGetKernel)(void** kernel, void* library, const char* name);
  int (*cuLaunchKernel)(void* kernel, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned shared,
                        Stream, void** arguments, void** extra);
  int (*cuStreamIsCapturing)(Stream, int* status);
  int (*cuStreamSynchronize)(Stream);
  int (*cuMemAlloc_v2)(Address* address, std::size_t size);
  int (*cuMemFree_v2)(Address address);
  int (*cuMemsetD8Async)(Address address, unsigned char value, std::size_t size, Stream);
  int (*cuEventCreate)(void** event, unsigned flags);
  int (*cuEventRecord)(void* event, Stream);
  int (*cuEventSynchronize)(void* event);
  int (*cuEventElapsedTime)(float* milliseconds, void* first, void* last);
  int (*cuEventDestroy_v2)(void* event);
};

// Throws Failure where there is no driver.
const Driver& driver();

// Memory of the current device.
class Memory {
 public:
  explicit Memory(std::size_t size);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  Address address() const { return address_; }

 private:
  Address address_ = 0;
};

class Blas;

// A device with bgert's kernels on it. There is one for each, which lives as long as the process.
class Device {
 public:
  // The one whose context is current in this thread, as it is where ONNX Runtime makes and runs operators.
  static Device& current();

  int number() const { return number_; }
  int capability() const { return capability_; }  // 90 for 9.0
  int processors() const { return processors_; }
  std::size_t cache_size() const { return cache_size_; }
  const char* code() const { return code_; }  // which file its kernels are from
  Blas& blas();

  // `arguments` are as the kernel declares them.
  template <class... Arguments>
  void launch(const std::string& kernel, unsigned grid_x, unsigned grid_y, unsigned threads, std::size_t shared,
              Stream stream, Arguments... arguments) {
    void* pointers[] = {&arguments...};
    launch_with(kernel, grid_x, grid_y, threads, shared, stream, pointers);
  }

  explicit Device(int number);
  ~Device();

 private:
  void launch_with(const std::string& kernel, unsigned grid_x, unsigned grid_y, unsigned threads, std::size_t shared,
                   Stream stream, void** arguments);

  int number_, capability_ = 0, processors_ = 0;
  std::size_t cache_size_ = 0;
  const char* code_ = "";
  void* library_ = nullptr;
  std::mutex mutex_;
  std::unordered_map<std::string, void*> kernels_;
  std::unique_ptr<Blas> blas_;
};

// The code that a device of this capability runs, from `binaries`, and its file's name.
const void* code_for(int capability, const char*& name);

}  // namespace bgert::cuda
