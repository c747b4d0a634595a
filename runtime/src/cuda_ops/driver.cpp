#include "driver.h"

#include <dlfcn.h>

#include <map>

#include "blas.h"

namespace bgert::cuda {
namespace {

enum Attribute : int { kProcessors = 16, kCacheSize = 38, kMajor = 75, kMinor = 76 };

int attribute(Attribute which, int device) {
  int value = 0;
  check(driver().cuDeviceGetAttribute(&value, which, device), "cuDeviceGetAttribute");
  return value;
}

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) throw Failure(std::string("NVIDIA's driver is too old for bgert's CUDA operators: no ") + name);
}

Driver load() {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw Failure(std::string("NVIDIA's driver does not load: ") + dlerror());
  Driver all;
#define BGERT_FIND(NAME) find(library, #NAME, all.NAME)
  BGERT_FIND(cuCtxGetDevice);
  BGERT_FIND(cuDeviceGetAttribute);
  BGERT_FIND(cuGetErrorName);
  BGERT_FIND(cuLibraryLoadData);
  BGERT_FIND(cuLibraryGetKernel);
  BGERT_FIND(cuLaunchKernel);
  BGERT_FIND(cuStreamIsCapturing);
  BGERT_FIND(cuStreamSynchronize);
  BGERT_FIND(cuMemAlloc_v2);
  BGERT_FIND(cuMemFree_v2);
  BGERT_FIND(cuMemsetD8Async);
  BGERT_FIND(cuEventCreate);
  BGERT_FIND(cuEventRecord);
  BGERT_FIND(cuEventSynchronize);
  BGERT_FIND(cuEventElapsedTime);
  BGERT_FIND(cuEventDestroy_v2);
#undef BGERT_FIND
  return all;
}

}  // namespace

const Driver& driver() {
  static const Driver all = load();
  return all;
}

void check(int code, const char* call) {
  if (code == 0) return;
  const char* name = nullptr;
  driver().cuGetErrorName(code, &name);
  throw Failure("CUDA failure " + std::to_string(code) + ": " + (name == nullptr ? "unknown" : name) + " in " + call);
}

Memory::Memory(std::size_t size) { check(driver().cuMemAlloc_v2(&address_, size), "cuMemAlloc"); }

Memory::~Memory() { driver().cuMemFree_v2(address_); }

Device::Device(int number)
    : number_(number),
      capability_(10 * attribute(kMajor, number) + attribute(kMinor, number)),
      processors_(attribute(kProcessors, number)),
      cache_size_(static_cast<std::size_t>(attribute(kCacheSize, number))) {
  const void* bytes = code_for(capability_, code_);
  check(driver().cuLibraryLoadData(&library_, bytes, nullptr, nullptr, 0, nullptr, nullptr, 0), "cuLibraryLoadData");
}

Device::~Device() = default;

Device& Device::current() {
  static std::mutex mutex;
  static auto* const devices = new std::map<int, std::unique_ptr<Device>>;  // never destroyed: CUDA may end first
  int number = 0;
  check(driver().cuCtxGetDevice(&number), "cuCtxGetDevice");
  const std::lock_guard lock(mutex);
  std::unique_ptr<Device>& device = (*devices)[number];
  if (device == nullptr) device = std::make_unique<Device>(number);
  return *device;
}

Blas& Device::blas() {
  const std::lock_guard lock(mutex_);
  if (blas_ == nullptr) blas_ = std::make_unique<Blas>();
  return *blas_;
}

void Device::launch_with(const std::string& kernel, unsigned grid_x, unsigned grid_y, unsigned threads,
                         std::size_t shared, Stream stream, void** arguments) {
  void* function = nullptr;
  {
    const std::lock_guard lock(mutex_);
    void*& known = kernels_[kernel];
    if (known == nullptr) check(driver().cuLibraryGetKernel(&known, library_, kernel.c_str()), kernel.c_str());
    function = known;
  }
  check(driver().cuLaunchKernel(function, grid_x, grid_y, 1, threads, 1, 1, static_cast<unsigned>(shared), stream,
                                arguments, nullptr),
        kernel.c_str());
}

}  // namespace bgert::cuda
