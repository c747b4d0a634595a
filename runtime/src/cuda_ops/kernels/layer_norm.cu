// y = LayerNorm(x + residual), [rows, columns].
#include "layer_norm.h"

template <int VECTORS, int WARPS>
DEVICE void add_layer_norm(const half* x, const half* residual, const half* gamma, const half* beta, half* y, int rows,
                           int columns, float epsilon) {
  const auto load = [=](int row, int vector, float (&values)[kVector]) {
    const long long at = static_cast<long long>(row) * columns + vector * kVector;
    const Pack left = load16(x + at), right = load16(residual + at);
    float added[kVector];
    unpack(left, values);
    unpack(right, added);
    UNROLL for (int j = 0; j < kVector; ++j) values[j] += added[j];
  };
  layer_norm_rows<VECTORS, WARPS>(load, gamma, beta, y, rows, columns, epsilon);
}

#define ADD_LAYER_NORM(WARPS, VECTORS)                                                                               \
  KERNEL_OF(128) void add_layer_norm_w##WARPS##_v##VECTORS(const half* x, const half* residual, const half* gamma,   \
                                                           const half* beta, half* y, int rows, int columns,         \
                                                           float epsilon) {                                          \
    add_layer_norm<VECTORS, WARPS>(x, residual, gamma, beta, y, rows, columns, epsilon);                             \
  }
ADD_LAYER_NORM(1, 1)
ADD_LAYER_NORM(1, 2)
ADD_LAYER_NORM(1, 3)
ADD_LAYER_NORM(1, 4)
ADD_LAYER_NORM(4, 1)
ADD_LAYER_NORM(4, 2)
ADD_LAYER_NORM(4, 4)
