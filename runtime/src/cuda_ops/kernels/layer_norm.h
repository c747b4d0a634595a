// LayerNorm of rows that are made on the way: one pass over memory, float32 in registers, two passes there.
#pragma once

#include "device.h"

constexpr int kNormWarps = 4;  // of a block: four rows at once, or one row

// `load(row, vector, values)` gives eight numbers of a row. WARPS is 1 (a warp a row, many rows) or kNormWarps (a block
// a row, few rows: latency counts); a thread holds VECTORS of a row's columns / 8.
template <int VECTORS, int WARPS, class Load>
DEVICE void layer_norm_rows(const Load& load, const half* gamma, const half* beta, half* y, int rows, int columns,
                            float epsilon) {
  SHARED(shared);
  float* room = reinterpret_cast<float*>(shared);
  constexpr int kThreads = kWarp * WARPS;
  constexpr int kRowsABlock = kNormWarps / WARPS;
  const int at = thread() % kThreads, vectors = columns / kVector;
  Pack scale[VECTORS], shift[VECTORS];
  UNROLL for (int i = 0; i < VECTORS; ++i) {
    const int vector = at + i * kThreads;
    if (vector < vectors) {
      scale[i] = load16(gamma + vector * kVector);
      shift[i] = load16(beta + vector * kVector);
    }
  }
  for (int row = block_x() * kRowsABlock + thread() / kThreads; row < rows; row += blocks_x() * kRowsABlock) {
    float values[VECTORS][kVector];
    float sum = 0.0f;
    UNROLL for (int i = 0; i < VECTORS; ++i) {
      const int vector = at + i * kThreads;
      if (vector < vectors) {
        load(row, vector, values[i]);
      } else {
        UNROLL for (int j = 0; j < kVector; ++j) values[i][j] = 0.0f;
      }
    }
    UNROLL for (int i = 0; i < VECTORS; ++i) {
      UNROLL for (int j = 0; j < kVector; ++j) sum += values[i][j];
    }
    const float mean = sum_of_block<WARPS>(sum, room) / static_cast<float>(columns);
    float squares = 0.0f;
    UNROLL for (int i = 0; i < VECTORS; ++i) {
      if (at + i * kThreads < vectors) {
        UNROLL for (int j = 0; j < kVector; ++j) {
          values[i][j] -= mean;
          squares += values[i][j] * values[i][j];
        }
      }
    }
    const float variance = sum_of_block<WARPS>(squares, room + WARPS) / static_cast<float>(columns);
    const float factor = inverse_root(variance + epsilon);
    UNROLL for (int i = 0; i < VECTORS; ++i) {
      const int vector = at + i * kThreads;
      if (vector < vectors) {
        float factors[kVector], shifts[kVector];
        unpack(scale[i], factors);
        unpack(shift[i], shifts);
        UNROLL for (int j = 0; j < kVector; ++j) values[i][j] = values[i][j] * factor * factors[j] + shifts[j];
        store16(y + static_cast<long long>(row) * columns + vector * kVector, packed(values[i]));
      }
    }
  }
}
