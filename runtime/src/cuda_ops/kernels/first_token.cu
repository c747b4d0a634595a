// The last layer where only a text's first token is wanted.
#include "device.h"

constexpr int kFirstThreads = 128;

// Attention of one query a text: queries [texts, H], rows [k, v] [tokens, 2 H] -> [texts, H]. A block is a head of a
// text; SIZE / 8 threads take a key together, and what groups of threads found is put together in one order.
template <int SIZE>
DEVICE void first_token_attention(const half* queries, const half* kv, const int* cu_seqlens, half* context,
                                  int columns, float scale) {
  SHARED(shared);
  constexpr int kLanes = SIZE / kVector;
  constexpr int kGroups = kFirstThreads / kLanes;
  const int head = block_x(), text = block_y();
  const int group = thread() / kLanes, part = thread() % kLanes;
  const int start = cu_seqlens[text], count = cu_seqlens[text + 1] - start;
  float query[kVector], sums[kVector] = {};
  unpack(load16(queries + static_cast<long long>(text) * columns + head * SIZE + part * kVector), query);
  float largest = -1e30f, total = 0.0f;
  // Every thread takes as many steps: shuffles are a warp's.
  for (int from = 0; from < count; from += kGroups) {
    const int key = from + group;
    const bool there = key < count;
    const half* row = kv + static_cast<long long>(start + (there ? key : 0)) * 2 * columns + head * SIZE + part * kVector;
    const Pack of_key = load16(row), of_value = load16(row + columns);
    float numbers[kVector], score = 0.0f;
    unpack(of_key, numbers);
    UNROLL for (int j = 0; j < kVector; ++j) score += query[j] * numbers[j];
    UNROLL for (int mask = 1; mask < kLanes; mask *= 2) score += shuffle_xor(score, mask);
    const float most = there ? larger(largest, score) : largest;
    const float fade = exp2_of((largest - most) * scale);
    const float weight = there ? exp2_of((score - most) * scale) : 0.0f;
    largest = most;
    total = total * fade + weight;
    unpack(of_value, numbers);
    UNROLL for (int j = 0; j < kVector; ++j) sums[j] = sums[j] * fade + weight * numbers[j];
  }
  float* of_groups = reinterpret_cast<float*>(shared);  // [groups, SIZE + 2]
  float* mine = of_groups + group * (SIZE + 2);
  UNROLL for (int j = 0; j < kVector; ++j) mine[part * kVector + j] = sums[j];
  if (part == 0) {
    mine[SIZE] = largest;
    mine[SIZE + 1] = total;
  }
  sync_block();
  if (thread() < SIZE / 2) {
    float most = -1e30f;
    for (int g = 0; g < kGroups; ++g) most = larger(most, of_groups[g * (SIZE + 2) + SIZE]);
    float left = 0.0f, right = 0.0f, sum = 0.0f;
    for (int g = 0; g < kGroups; ++g) {
      const float* other = of_groups + g * (SIZE + 2);
      const float factor = exp2_of((other[SIZE] - most) * scale);
      left += other[2 * thread()] * factor;
      right += other[2 * thread() + 1] * factor;
      sum += other[SIZE + 1] * factor;
    }
    const float factor = sum > 0.0f ? 1.0f / sum : 0.0f;  // a text without a token
    *reinterpret_cast<unsigned*>(context + static_cast<long long>(text) * columns + head * SIZE + 2 * thread()) =
        pack2(left * factor, right * factor);
  }
}

KERNEL_OF(128) void first_token_attention_h32(const half* queries, const half* kv, const int* cu_seqlens, half* context,
                                              int columns, float scale) {
  first_token_attention<32>(queries, kv, cu_seqlens, context, columns, scale);
}
KERNEL_OF(128) void first_token_attention_h64(const half* queries, const half* kv, const int* cu_seqlens, half* context,
                                              int columns, float scale) {
  first_token_attention<64>(queries, kv, cu_seqlens, context, columns, scale);
}

// The first row of each text, any row for a text without a token: rows [tokens, H] -> [texts, H]. A block a text.
KERNEL_OF(128) void first_rows(const half* rows, const int* cu_seqlens, half* y, int tokens, int columns) {
  const int text = block_x(), start = cu_seqlens[text];
  const long long row = start < tokens ? start : tokens - 1;
  for (int vector = thread(); vector < columns / kVector; vector += kFirstThreads) {
    store16(y + static_cast<long long>(text) * columns + vector * kVector,
            load16(rows + row * columns + vector * kVector));
  }
}
