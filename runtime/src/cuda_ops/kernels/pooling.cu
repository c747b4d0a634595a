// What leaves the model: float32 rows [texts, H], a block of 512 threads each. `mean` takes the mean of a text's rows
// [tokens, H]; else there is one row a text already. `normalize` divides by the L2 norm, at least 1e-12.
#include "device.h"

constexpr int kPoolThreads = 512;

KERNEL_OF(512) void pool(const half* rows, const int* cu_seqlens, float* y, int columns, int mean, int normalize) {
  SHARED(shared);
  float* sums = reinterpret_cast<float*>(shared);  // [groups, columns], then a number a warp
  const int vectors = columns / kVector, text = block_x();
  const int groups = kPoolThreads / vectors;
  float* room = sums + groups * columns;
  const int group = thread() / vectors, vector = thread() % vectors;
  const int start = mean ? cu_seqlens[text] : text;
  const int count = mean ? cu_seqlens[text + 1] - start : 1;
  float values[kVector] = {};
  if (group < groups) {
    for (int row = group; row < count; row += groups) {
      float more[kVector];
      unpack(load16(rows + static_cast<long long>(start + row) * columns + vector * kVector), more);
      UNROLL for (int j = 0; j < kVector; ++j) values[j] += more[j];
    }
    UNROLL for (int j = 0; j < kVector; ++j) sums[group * columns + vector * kVector + j] = values[j];
  }
  sync_block();
  float squares = 0.0f;
  if (group == 0) {
    for (int g = 1; g < groups; ++g) {
      UNROLL for (int j = 0; j < kVector; ++j) values[j] += sums[g * columns + vector * kVector + j];
    }
    const float divisor = count > 0 ? static_cast<float>(count) : 1.0f;
    UNROLL for (int j = 0; j < kVector; ++j) {
      values[j] /= divisor;
      squares += values[j] * values[j];
    }
  }
  float divisor = 1.0f;
  if (normalize) divisor = larger(root(sum_of_block<kPoolThreads / kWarp>(squares, room)), 1e-12f);
  if (group == 0) {
    UNROLL for (int j = 0; j < kVector; ++j) {
      y[static_cast<long long>(text) * columns + vector * kVector + j] = values[j] / divisor;
    }
  }
}
