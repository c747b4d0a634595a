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
  const float* bias = nullptr;  // bias[j - i] is added to the scaled score of query i and key j; null for none
};

// Matrices are cut into panels of 32 columns, [N / 32][K / k][32][k]: k is 1 for floats, 2 for bfloat16, 4 for bytes.
constexpr std::size_t kPanelColumns = 32;
constexpr std::size_t kMostInt8Depth = 1 << 16;  // sums of this many products of bytes are still exact in 32 bits
constexpr std::size_t kRowScaleBytes = 8;  // behind the bytes of a quantised row: its scale (float) and zero (int32)

struct Fp32Panel {
  const float* weights;
  const float* bias;
  std::size_t depth;  // K
};

struct Bf16Panel {
  const unsigned short* weights;
  const float* bias;
  std::size_t depth;  // K, a multiple of 2
};

struct Int8Panel {
  const signed char* weights;  // from -127 to 127
  const float* scales;
  const int* sums;  // of each column's weights
  const float* bias;
  std::size_t depth;  // K, a multiple of 4
};

struct Kernels {
  const char* name;
  // Floats that `attend` needs to work in.
  std::size_t (*attention_scratch)(std::size_t length, std::size_t size);
  void (*attend)(const AttentionHead& head, float* scratch);
  // The same with products in bfloat16, where the processor has them.
  std::size_t (*attention_bf16_scratch)(std::size_t length, std::size_t size);
  void (*attend_bf16)(const AttentionHead& head, float* scratch);
  void (*add_layer_norm)(const float* x, const float* residual, const float* gamma, const float* beta, float epsilon,
                         std::size_t size, float* out);
  void (*gelu)(const float* x, std::size_t size, float* out);
  void (*mean_rows)(const float* from, std::size_t rows, std::size_t size, float* out);
  // Rows of x times one panel, into 32 columns of rows that are `stride` apart; so do the ones below.
  void (*linear_fp32)(std::size_t rows, const float* x, const Fp32Panel& panel, bool with_gelu, float* out,
                      std::size_t stride);
  void (*round_bf16)(const float* x, std::size_t size, unsigned short* out);
  void (*linear_bf16)(std::size_t rows, const unsigned short* x, const Bf16Panel& panel, float* out,
                      std::size_t stride);
  void (*linear_gelu_bf16)(std::size_t rows, const unsigned short* x, const Bf16Panel& panel, unsigned short* out,
                           std::size_t stride);
  // `factors` may be null.
  void (*quantize_row)(const float* x, const float* factors, std::size_t size, unsigned char* out);
  void (*linear_int8)(std::size_t rows, const unsigned char* x, const Int8Panel& panel, bool with_gelu, float* out,
                      std::size_t stride);
  // up = activation(gate) * up: GELU or SiLU.
  void (*gate_rows)(const float* gate, std::size_t size, bool silu, float* up);
  // One head of one token; `turns` holds a cosine for each pair of numbers, then as many sines.
  void (*rotate)(const float* x, const float* turns, std::size_t size, float* out);
};

// All there are, of every architecture.
constexpr const char* kKernelNames[] = {"baseline",   "avx2",    "avx2vnni", "avx512",  "avx512vnni",
                                        "avx512bf16", "avx512amx", "neondot", "neoni8mm", "neonbf16"};

// The best the processor has, or the one that BGERT_KERNELS names; nullptr if it does not have that.
const Kernels* choose_kernels(const char* wanted);

}  // namespace bgert
