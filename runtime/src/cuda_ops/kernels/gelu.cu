// GELU in place, [count] float16 in vectors of eight: x times the normal distribution's integral, which is the logistic
// function of an odd polynomial in x to 3.1e-6 (x times it). The polynomial stays right where it leaves its range: it
// has the sign of x and grows. erff would make this kernel wait for instructions instead of memory.
#include "device.h"

constexpr int kGeluThreads = 256;

DEVICE float gelu_of(float x) {
  const float square = x * x;
  float polynomial = 2.23816670e-06f;
  polynomial = polynomial * square - 6.11620680e-05f;
  polynomial = polynomial * square - 2.49722892e-04f;
  polynomial = polynomial * square + 7.29375811e-02f;
  polynomial = polynomial * square + 1.59565627f;
  return x * inverse(1.0f + exp2_of(-1.44269504f * x * polynomial));
}

KERNEL_OF(256) void gelu(half* rows, long long vectors) {
  for (long long at = static_cast<long long>(block_x()) * kGeluThreads + thread(); at < vectors;
       at += static_cast<long long>(blocks_x()) * kGeluThreads) {
    float values[kVector];
    unpack(load16_written(rows + at * kVector), values);
    UNROLL for (int j = 0; j < kVector; ++j) values[j] = gelu_of(values[j]);
    store16(rows + at * kVector, packed(values));
  }
}
