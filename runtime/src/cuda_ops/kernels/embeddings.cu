// y = LayerNorm(words[ids] + positions[index]), [rows, columns]. The position table may hold one table after the other
// for each token type, `stride` rows each. Ids out of their table are taken to its ends: no read leaves it.
#include "layer_norm.h"

DEVICE int within(int index, int count) { return index < 0 ? 0 : index < count ? index : count - 1; }

template <int VECTORS, int WARPS>
DEVICE void embedding_layer_norm(const int* ids, const int* index, const int* types, const half* words,
                                 const half* positions, const half* gamma, const half* beta, half* y, int rows,
                                 int columns, int vocabulary, int places, int stride, float epsilon) {
  const auto load = [=](int row, int vector, float (&values)[kVector]) {
    const int word = within(ids[row], vocabulary);
    const int place = within(index[row] + (types != nullptr ? types[row] * stride : 0), places);
    const Pack left = load16(words + static_cast<long long>(word) * columns + vector * kVector);
    const Pack right = load16(positions + static_cast<long long>(place) * columns + vector * kVector);
    float added[kVector];
    unpack(left, values);
    unpack(right, added);
    UNROLL for (int j = 0; j < kVector; ++j) values[j] += added[j];
  };
  layer_norm_rows<VECTORS, WARPS>(load, gamma, beta, y, rows, columns, epsilon);
}

#define EMBEDDING_LAYER_NORM(WARPS, VECTORS)                                                                         \
  KERNEL_OF(128) void embedding_layer_norm_w##WARPS##_v##VECTORS(                                                    \
      const int* ids, const int* index, const int* types, const half* words, const half* positions,                 \
      const half* gamma, const half* beta, half* y, int rows, int columns, int vocabulary, int places, int stride,   \
      float epsilon) {                                                                                               \
    embedding_layer_norm<VECTORS, WARPS>(ids, index, types, words, positions, gamma, beta, y, rows, columns,         \
                                         vocabulary, places, stride, epsilon);                                       \
  }
EMBEDDING_LAYER_NORM(1, 1)
EMBEDDING_LAYER_NORM(1, 2)
EMBEDDING_LAYER_NORM(1, 3)
EMBEDDING_LAYER_NORM(1, 4)
EMBEDDING_LAYER_NORM(4, 1)
EMBEDDING_LAYER_NORM(4, 2)
EMBEDDING_LAYER_NORM(4, 4)
