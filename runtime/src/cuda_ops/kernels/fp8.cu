// What FP8 products read and, where they scale nothing themselves, what becomes of their sums.
#include "fp8.h"

#if defined(BGERT_EMULATED) || __CUDA_ARCH__ >= 890

constexpr int kFp8Rows = 4;  // of a block of 128 threads

template <int VECTORS>
DEVICE void quantize_fp8(const half* rows, unsigned char* operand, float* scales, int count, int columns) {
  const int vectors = columns / kVector, lane = thread() % kWarp;
  const int row = block_x() * kFp8Rows + thread() / kWarp;
  if (row >= count) return;
  const long long start = static_cast<long long>(row) * columns;
  Pack kept[VECTORS];
  UNROLL for (int i = 0; i < VECTORS; ++i) {
    if (lane + i * kWarp < vectors) kept[i] = load16(rows + start + (lane + i * kWarp) * kVector);
  }
  quantize_row<VECTORS>(kept, vectors, operand + start, scales + row);
}

// GELU, rounded to float16 as the fp16 graph has it, then quantised.
template <int VECTORS>
DEVICE void gelu_fp8(const half* rows, unsigned char* operand, float* scales, int count, int columns) {
  const int vectors = columns / kVector, lane = thread() % kWarp;
  const int row = block_x() * kFp8Rows + thread() / kWarp;
  if (row >= count) return;
  const long long start = static_cast<long long>(row) * columns;
  Pack kept[VECTORS];
  UNROLL for (int i = 0; i < VECTORS; ++i) {  // all loads are on their way before the first is used
    if (lane + i * kWarp < vectors) kept[i] = load16(rows + start + (lane + i * kWarp) * kVector);
  }
  UNROLL for (int i = 0; i < VECTORS; ++i) {
    if (lane + i * kWarp < vectors) {
      float values[kVector];
      unpack(kept[i], values);
      UNROLL for (int j = 0; j < kVector; ++j) values[j] = gelu_of(values[j]);
      kept[i] = packed(values);
    }
  }
  quantize_row<VECTORS>(kept, vectors, operand + start, scales + row);
}

// y = LayerNorm(x + residual), and y quantised.
template <int VECTORS>
DEVICE void add_layer_norm_fp8(const half* x, const half* residual, const half* gamma, const half* beta, half* y,
                               unsigned char* operand, float* scales, int count, int columns, float epsilon) {
  const int vectors = columns / kVector, lane = thread() % kWarp;
  const int row = block_x() * kFp8Rows + thread() / kWarp;
  if (row >= count) return;
  const long long start = static_cast<long long>(row) * columns;
  float values[VECTORS][kVector];
  float sum = 0.0f;
  UNROLL for (int i = 0; i < VECTORS; ++i) {
    UNROLL for (int j = 0; j < kVector; ++j) values[i][j] = 0.0f;
    const int vector = lane + i * kWarp;
    if (vector < vectors) {
      float added[kVector];
      unpack(load16(x + start + vector * kVector), values[i]);
      unpack(load16(residual + start + vector * kVector), added);
      UNROLL for (int j = 0; j < kVector; ++j) values[i][j] += added[j];
    }
    UNROLL for (int j = 0; j < kVector; ++j) sum += values[i][j];
  }
  const float mean = sum_of_warp(sum) / static_cast<float>(columns);
  float squares = 0.0f;
  UNROLL for (int i = 0; i < VECTORS; ++i) {
    if (lane + i * kWarp < vectors) {
      UNROLL for (int j = 0; j < kVector; ++j) {
        values[i][j] -= mean;
        squares += values[i][j] * values[i][j];
      }
    }
  }
  const float factor = inverse_root(sum_of_warp(squares) / static_cast<float>(columns) + epsilon);
  Pack kept[VECTORS];
  UNROLL for (int i = 0; i < VECTORS; ++i) {
    const int vector = lane + i * kWarp;
    if (vector < vectors) {
      float factors[kVector], shifts[kVector];
      unpack(load16(gamma + vector * kVector), factors);
      unpack(load16(beta + vector * kVector), shifts);
      UNROLL for (int j = 0; j < kVector; ++j) values[i][j] = values[i][j] * factor * factors[j] + shifts[j];
      kept[i] = packed(values[i]);
      store16(y + start + vector * kVector, kept[i]);
    }
  }
  quantize_row<VECTORS>(kept, vectors, operand + start, scales + row);
}

#define FP8_ROWS(VECTORS)                                                                                       \
  KERNEL_OF(128) void quantize_fp8_v##VECTORS(const half* rows, unsigned char* operand, float* scales,         \
                                              int count, int columns) {                                        \
    quantize_fp8<VECTORS>(rows, operand, scales, count, columns);                                              \
  }                                                                                                            \
  KERNEL_OF(128) void gelu_fp8_v##VECTORS(const half* rows, unsigned char* operand, float* scales, int count,  \
                                          int columns) {                                                       \
    gelu_fp8<VECTORS>(rows, operand, scales, count, columns);                                                  \
  }
#define FP8_NORM(VECTORS)                                                                                       \
  KERNEL_OF(128) void add_layer_norm_fp8_v##VECTORS(const half* x, const half* residual, const half* gamma,    \
                                                    const half* beta, half* y, unsigned char* operand,         \
                                                    float* scales, int count, int columns, float epsilon) {    \
    add_layer_norm_fp8<VECTORS>(x, residual, gamma, beta, y, operand, scales, count, columns, epsilon);        \
  }
FP8_ROWS(1)
FP8_ROWS(2)
FP8_ROWS(3)
FP8_ROWS(4)
FP8_ROWS(6)
FP8_ROWS(8)
FP8_ROWS(12)
FP8_ROWS(16)
FP8_NORM(1)
FP8_NORM(2)
FP8_NORM(3)
FP8_NORM(4)

// y = y * unit * scales[row] * weight_scales[column] + bias[column], [rows, columns] in place: what compute capability
// 8.9 cannot do inside a product.
KERNEL_OF(256) void scale_product(half* y, const float* scales, const float* weight_scales, const half* bias, int rows,
                                  int columns, float unit) {
  const int vectors = columns / kVector;
  const long long count = static_cast<long long>(rows) * vectors;
  for (long long at = static_cast<long long>(block_x()) * 256 + thread(); at < count;
       at += static_cast<long long>(blocks_x()) * 256) {
    const int row = static_cast<int>(at / vectors), column = static_cast<int>(at % vectors) * kVector;
    float values[kVector], added[kVector];
    unpack(load16_written(y + at * kVector), values);
    unpack(load16(bias + column), added);
    const float scale = unit * scales[row];
    UNROLL for (int j = 0; j < kVector; ++j) values[j] = values[j] * (scale * weight_scales[column + j]) + added[j];
    store16(y + at * kVector, packed(values));
  }
}

// GELU of [count] float16 in vectors of eight.
KERNEL_OF(256) void gelu_rows(const half* rows, half* y, long long vectors) {
  for (long long at = static_cast<long long>(block_x()) * 256 + thread(); at < vectors;
       at += static_cast<long long>(blocks_x()) * 256) {
    float values[kVector];
    unpack(load16(rows + at * kVector), values);
    UNROLL for (int j = 0; j < kVector; ++j) values[j] = gelu_of(values[j]);
    store16(y + at * kVector, packed(values));
  }
}

#endif
