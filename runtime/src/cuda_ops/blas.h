// cuBLASLt without its headers, and products whose algorithm is timed once a shape.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "driver.h"

namespace bgert::cuda {

// Numbers of cublasLt.h, of CUDA 12 and 13.
enum DataType : int { kRealFloat32 = 0, kRealFloat16 = 2, kRealE4m3 = 28 };
enum Epilogue : std::int32_t { kNone = 1, kBias = 4, kBiasGelu = 36 };

struct Algorithm {
  std::uint64_t data[8];
};
struct Candidate {
  Algorithm algorithm;
  std::size_t workspace;
  int state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Candidate) == 96);

// What x and weights are: float16, or E4M3 with a scale for each row and output or with none.
enum Kind : int { kHalf, kFp8Scaled, kFp8Plain };

// y [rows, outputs] = epilogue(factor * x [rows, inputs] * weights [outputs, inputs]^T) in float16, sums in float32.
struct Shape {
  std::int64_t rows, inputs, outputs;
  Epilogue epilogue;
  Kind kind = kHalf;
  float factor = 1.0f;
};

// Memory that a product may use, one for a stream: products on it follow each other.
constexpr std::size_t kWorkspace = 32 << 20;
std::shared_ptr<Memory> workspace_of(int device, Stream stream);

// What cuBLAS wants to know of a product.
class Description {
 public:
  Description(Blas& blas, const Shape& shape);
  ~Description();
  Description(const Description&) = delete;
  Description& operator=(const Description&) = delete;

  Blas& blas;
  Shape shape;
  void* operation = nullptr;
  void* weights = nullptr;  // layouts
  void* x = nullptr;
  void* y = nullptr;
  Algorithm algorithm{};
  bool chosen = false;
};

struct Operands {
  const void* x;
  const void* weights;
  const void* bias;
  void* y;
  const void* x_scales = nullptr;  // of kFp8Scaled, float32 [rows] and [outputs]
  const void* weight_scales = nullptr;
};

// cuBLASLt on one device.
class Blas {
 public:
  Blas();

  // Queues a product. The first in a bucket of rows times all algorithms that cuBLAS offers, but not in a capture.
  void multiply(Description& description, const Operands& operands, Device& device, Stream stream, Address workspace);

  int (*create)(void** handle);
  int (*create_operation)(void** operation, int compute, int scale);
  int (*set_operation)(void* operation, int attribute, const void* value, std::size_t size);
  int (*destroy_operation)(void* operation);
  int (*create_layout)(void** layout, int type, std::uint64_t rows, std::uint64_t columns, std::int64_t stride);
  int (*destroy_layout)(void* layout);
  int (*create_preference)(void** preference);
  int (*set_preference)(void* preference, int attribute, const void* value, std::size_t size);
  int (*destroy_preference)(void* preference);
  int (*heuristics)(void* handle, void* operation, void* a, void* b, void* c, void* d, void* preference, int wanted,
                    Candidate* found, int* count);
  int (*check_algorithm)(void* handle, void* operation, void* a, void* b, void* c, void* d, const Algorithm*,
                         Candidate*);
  int (*matmul)(void* handle, void* operation, const void* alpha, const void* a, void* a_layout, const void* b,
                void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                const Algorithm*, void* workspace, std::size_t size, Stream);

 private:
  using Bucket = std::array<std::int64_t, 5>;

  void choose(Description& description, const Operands& operands, Device& device, Stream stream, Address workspace);
  float time(const Description& description, const Operands& operands, const Algorithm& algorithm, Device& device,
             Stream stream, Address workspace, const Memory* flush);
  int queue(const Description& description, const Operands& operands, const Algorithm& algorithm, Stream stream,
            Address workspace);

  void* handle_ = nullptr;
  std::mutex mutex_;
  std::map<Bucket, Algorithm> timed_;
};

// Rows whose products share an algorithm: up to the next power of two.
std::int64_t bucket_of(std::int64_t rows);

}  // namespace bgert::cuda
