// Stands for libcublasLt without a GPU, as far as bgert's CUDA operators use it: products of float16, or of E4M3 as
// compute capability FAKE_SM takes it, summed in float32, with bias and GELU's tanh form. What is asked for otherwise is refused, as are sizes that do not fit.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <vector>

#include "fp8_emulated.h"

extern "C" void fake_cuda_submit(void (*run)(void*), void* data);

namespace {

constexpr int kRefused = 7;

struct Operation {
  int transpose_a = 0, transpose_b = 0, epilogue = 1;
  const void* bias = nullptr;
  int scale_mode_a = 0, scale_mode_b = 0;
  const float *scale_a = nullptr, *scale_b = nullptr;
};
struct Layout {
  int type;
  std::uint64_t rows, columns;
  std::int64_t stride;
};
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

float number(std::uint16_t bits) {
  _Float16 half;
  std::memcpy(&half, &bits, 2);
  return static_cast<float>(half);
}

std::uint16_t rounded(float value) {
  const auto half = static_cast<_Float16>(value);
  std::uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}

std::vector<float> numbers(const void* from, std::uint64_t count, int type = 2) {
  std::vector<float> all(count);
  if (type == 28) {
    for (std::uint64_t i = 0; i < count; ++i) all[i] = emulator::e4m3_of(static_cast<const unsigned char*>(from)[i]);
    return all;
  }
  for (std::uint64_t i = 0; i < count; ++i) all[i] = number(static_cast<const std::uint16_t*>(from)[i]);
  return all;
}

bool fits(const Operation& of, const Layout& a, const Layout& b, const Layout& d) {
  const bool known = of.epilogue == 1 || of.epilogue == 4 || of.epilogue == 36;
  const bool fp8 = a.type == 28;
  // Sizes are multiples of 16, and one scale a row is for compute capability 9.0 alone.
  if (fp8 && (a.rows % 16 != 0 || a.columns % 16 != 0 || FAKE_SM < 89)) return false;
  if (of.scale_mode_a != of.scale_mode_b || (of.scale_mode_a == 3 && (!fp8 || FAKE_SM != 90))) return false;
  if (of.scale_mode_a == 3 && (of.scale_a == nullptr || of.scale_b == nullptr)) return false;
  if (a.type != b.type || d.type != 2) return false;
  return known && of.transpose_a == 1 && of.transpose_b == 0 && a.rows == b.rows && a.columns == d.rows &&
         b.columns == d.columns && a.stride == static_cast<std::int64_t>(a.rows) &&
         b.stride == static_cast<std::int64_t>(b.rows) && d.stride == static_cast<std::int64_t>(d.rows);
}

void multiply(const Operation& of, const Layout& a, const Layout& b, const void* weights, const void* x, void* y,
              float alpha) {
  const std::uint64_t inputs = a.rows, outputs = a.columns, rows = b.columns;
  const std::vector<float> w = numbers(weights, inputs * outputs, a.type), left = numbers(x, inputs * rows, b.type);
  const std::vector<float> bias = of.epilogue == 1 ? std::vector<float>(outputs) : numbers(of.bias, outputs);
  for (std::uint64_t row = 0; row < rows; ++row) {
    for (std::uint64_t out = 0; out < outputs; ++out) {
      float sum = 0.0f;
      const float *p = &left[row * inputs], *q = &w[out * inputs];
      for (std::uint64_t i = 0; i < inputs; ++i) sum += p[i] * q[i];
      sum *= alpha;
      if (of.scale_mode_a == 3) sum *= of.scale_a[out] * of.scale_b[row];
      sum += bias[out];
      if (of.epilogue == 36) {
        sum = 0.5f * sum * (1.0f + std::tanh(0.7978845608f * (sum + 0.044715f * sum * sum * sum)));
      }
      static_cast<std::uint16_t*>(y)[row * outputs + out] = rounded(sum);
    }
  }
}

}  // namespace

extern "C" {

int cublasLtCreate(void** handle) {
  *handle = new int(0);
  return 0;
}
int cublasLtMatmulDescCreate(void** operation, int compute, int scale) {
  if (compute != 68 || scale != 0) return kRefused;
  *operation = new Operation;
  return 0;
}
int cublasLtMatmulDescSetAttribute(void* operation, int attribute, const void* value, std::size_t size) {
  auto& of = *static_cast<Operation*>(operation);
  const std::map<int, std::pair<void*, std::size_t>> places{{3, {&of.transpose_a, 4}},
                                                            {4, {&of.transpose_b, 4}},
                                                            {7, {&of.epilogue, 4}},
                                                            {8, {&of.bias, 8}},
                                                            {17, {&of.scale_a, 8}},
                                                            {18, {&of.scale_b, 8}},
                                                            {31, {&of.scale_mode_a, 4}},
                                                            {32, {&of.scale_mode_b, 4}}};
  const auto found = places.find(attribute);
  if (found == places.end() || found->second.second != size) return kRefused;
  std::memcpy(found->second.first, value, size);
  return 0;
}
int cublasLtMatmulDescDestroy(void* operation) {
  delete static_cast<Operation*>(operation);
  return 0;
}
int cublasLtMatrixLayoutCreate(void** layout, int type, std::uint64_t rows, std::uint64_t columns, std::int64_t stride) {
  if (type != 2 && type != 28) return kRefused;
  *layout = new Layout{type, rows, columns, stride};
  return 0;
}
int cublasLtMatrixLayoutDestroy(void* layout) {
  delete static_cast<Layout*>(layout);
  return 0;
}
int cublasLtMatmulPreferenceCreate(void** preference) {
  *preference = new std::uint64_t(0);
  return 0;
}
int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value, std::size_t size) {
  if (attribute != 1 || size != 8) return kRefused;
  std::memcpy(preference, value, size);
  return 0;
}
int cublasLtMatmulPreferenceDestroy(void* preference) {
  delete static_cast<std::uint64_t*>(preference);
  return 0;
}
// Two, of which the first does not run: tuning must take the second.
int cublasLtMatmulAlgoGetHeuristic(void*, void* operation, void* a, void* b, void*, void* d, void* preference, int wanted,
                                   Candidate* found, int* count) {
  if (!fits(*static_cast<Operation*>(operation), *static_cast<Layout*>(a), *static_cast<Layout*>(b),
            *static_cast<Layout*>(d)) ||
      *static_cast<std::uint64_t*>(preference) == 0 || wanted < 2) {
    return 15;
  }
  found[0] = {{{1}}, 0, 0, 1.0f, {}};
  found[1] = {{{2}}, 1024, 0, 1.0f, {}};
  *count = 2;
  return 0;
}
int cublasLtMatmulAlgoCheck(void*, void* operation, void* a, void* b, void*, void* d, const Algorithm* algorithm,
                            Candidate* result) {
  if (!fits(*static_cast<Operation*>(operation), *static_cast<Layout*>(a), *static_cast<Layout*>(b),
            *static_cast<Layout*>(d))) {
    return kRefused;
  }
  *result = {*algorithm, 1024, 0, 1.0f, {}};
  return 0;
}
int cublasLtMatmul(void*, void* operation, const void* alpha, const void* a, void* a_layout, const void* b,
                   void* b_layout, const void* beta, const void*, void*, void* d, void* d_layout,
                   const Algorithm* algorithm, void* workspace, std::size_t size, void*) {
  const Operation of = *static_cast<Operation*>(operation);
  const Layout of_a = *static_cast<Layout*>(a_layout), of_b = *static_cast<Layout*>(b_layout);
  if (!fits(of, of_a, of_b, *static_cast<Layout*>(d_layout)) ||
      (*static_cast<const float*>(alpha) != 1.0f && of_a.type == 2) ||
      *static_cast<const float*>(beta) != 0.0f || algorithm->data[0] != 2 || workspace == nullptr || size < 1024) {
    return kRefused;
  }
  auto* work = new std::function<void()>(
      [=, factor = *static_cast<const float*>(alpha)] { multiply(of, of_a, of_b, a, b, d, factor); });
  fake_cuda_submit([](void* data) { (*static_cast<std::function<void()>*>(data))(); }, work);
  return 0;
}
}
