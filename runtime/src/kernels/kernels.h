// The kernels that are compiled once for each instruction set, and the choice between them.
#pragma once

#include <cstddef>

namespace bgert {

// One head of one text. Rows of `query`, `key`, `value` and `out` are `stride` floats apart.
struct AttentionHead {
  const float* query;
  const float* key;
  const float* value;
  float* out;
  std::size_t stride;
  std::size_t queries;
  std::size_t length;  // of the text: rows of key and value
  std::size_t size;    // floats of a head
  float scale;
};

struct Kernels {
  const char* name;
  // Floats that `attend` needs to work in.
  std::size_t (*attention_scratch)(std::size_t length, std::size_t size);
  void (*attend)(const AttentionHead& head, float* scratch);
  void (*add_layer_norm)(const float* x, const float* residual, const float* gamma, const float* beta, float epsilon,
                         std::size_t size, float* out);
  void (*gelu)(const float* x, std::size_t size, float* out);
  void (*mean_rows)(const float* from, std::size_t rows, std::size_t size, float* out);
};

// The best the processor has, or the one that BGERT_KERNELS names; nullptr if it does not have that.
const Kernels* choose_kernels(const char* wanted);

}  // namespace bgert
