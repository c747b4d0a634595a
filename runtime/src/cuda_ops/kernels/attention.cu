// softmax(q k^T / sqrt(size)) v within each text, from rows [q, k, v] of all heads, read where they lie: [tokens, 3 H] to
// [tokens, H]. A block has a tile of queries of one text and one head; keys pass by in tiles of 64, two in shared memory.
// What a query gets does not depend on how many are in its tile.
#include "device.h"

constexpr int kKeys = 64;
constexpr int kAttentionWarps = 4;
constexpr int kAttentionThreads = kAttentionWarps * kWarp;

// Where 16 bytes of a tile lie: rows that are read together are in different banks.
template <int SIZE>
DEVICE int place(int row, int chunk) {
  const int turn = SIZE == 64 ? row % 8 : (row / 2) % 4;
  return row * SIZE * 2 + (chunk ^ turn) * 16;
}

// Rows of a head from memory; zeros from `count` on.
template <int SIZE, int ROWS>
DEVICE void copy_tile(unsigned char* tile, const half* rows, long long stride, int count) {
  constexpr int kChunks = SIZE / kVector;
  UNROLL for (int at = thread(); at < ROWS * kChunks; at += kAttentionThreads) {
    const int row = at / kChunks, chunk = at % kChunks;
    const bool there = row < count;
    copy16_async(tile + place<SIZE>(row, chunk), rows + (there ? row : 0) * stride + chunk * kVector, there);
  }
}

template <int SIZE, int ROWS>
DEVICE void attention(const half* qkv, const int* cu_seqlens, const int* tiles, half* context, int columns,
                      float scale) {
  SHARED(shared);
  constexpr int kTiles = ROWS / kAttentionWarps / 16;  // of 16 queries, in a warp
  constexpr int kSteps = SIZE / 16;
  constexpr int kBytes = kKeys * SIZE * 2;
  const int text = tiles[2 * block_x()], first = tiles[2 * block_x() + 1];
  if (text < 0) return;
  const int start = cu_seqlens[text], count = cu_seqlens[text + 1] - start;
  const int warp = thread() / kWarp, lane = thread() % kWarp;
  const long long stride = 3ll * columns;
  const half* queries = qkv + (start + first) * stride + block_y() * SIZE;
  const half* keys = qkv + start * stride + columns + block_y() * SIZE;
  const half* values = keys + columns;
  unsigned char* query_tile = shared;
  unsigned char* key_tiles = shared + ROWS * SIZE * 2;  // key, value, key, value

  copy_tile<SIZE, ROWS>(query_tile, queries, stride, count - first);
  copy_tile<SIZE, kKeys>(key_tiles, keys, stride, count);
  copy_tile<SIZE, kKeys>(key_tiles + kBytes, values, stride, count);
  commit_copies();

  float sums[kTiles][SIZE / 8][4] = {};
  float largest[kTiles][2], total[kTiles][2] = {};
  UNROLL for (int t = 0; t < kTiles; ++t) largest[t][0] = largest[t][1] = -1e30f;

  for (int from = 0; from < count; from += kKeys) {
    const int now = from / kKeys % 2;
    const unsigned char* key_tile = key_tiles + now * 2 * kBytes;
    const unsigned char* value_tile = key_tile + kBytes;
    if (from + kKeys < count) {
      unsigned char* next = key_tiles + (1 - now) * 2 * kBytes;
      const int left = count - from - kKeys;
      copy_tile<SIZE, kKeys>(next, keys + (from + kKeys) * stride, stride, left);
      copy_tile<SIZE, kKeys>(next + kBytes, values + (from + kKeys) * stride, stride, left);
      commit_copies();
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    sync_block();
    float scores[kTiles][kKeys / 8][4] = {};
    UNROLL for (int k = 0; k < kSteps; ++k) {
      unsigned query[kTiles][4];  // read again for each tile of keys: registers are scarcer
      UNROLL for (int t = 0; t < kTiles; ++t) {
        load_matrices(query[t], query_tile + place<SIZE>((warp * kTiles + t) * 16 + lane % 16, 2 * k + lane / 16));
      }
      UNROLL for (int n = 0; n < kKeys / 16; ++n) {
        unsigned key[4];
        const int row = n * 16 + lane / 16 * 8 + lane % 8;
        load_matrices(key, key_tile + place<SIZE>(row, 2 * k + lane / 8 % 2));
        UNROLL for (int t = 0; t < kTiles; ++t) {
          multiply_add(scores[t][2 * n], query[t], key[0], key[1]);
          multiply_add(scores[t][2 * n + 1], query[t], key[2], key[3]);
        }
      }
    }
    if (from + kKeys > count) {
      UNROLL for (int t = 0; t < kTiles; ++t) {
        UNROLL for (int n = 0; n < kKeys / 8; ++n) {
          UNROLL for (int i = 0; i < 4; ++i) {
            if (from + n * 8 + lane % 4 * 2 + i % 2 >= count) scores[t][n][i] = -1e30f;
          }
        }
      }
    }

    // A lane holds numbers of two rows, lane / 4 and eight below; four lanes have a row.
    UNROLL for (int t = 0; t < kTiles; ++t) {
      UNROLL for (int r = 0; r < 2; ++r) {
        float most = largest[t][r];
        UNROLL for (int n = 0; n < kKeys / 8; ++n) {
          most = larger(most, larger(scores[t][n][2 * r], scores[t][n][2 * r + 1]));
        }
        most = larger(most, shuffle_xor(most, 1));
        most = larger(most, shuffle_xor(most, 2));
        const float fade = exp2_of((largest[t][r] - most) * scale);
        largest[t][r] = most;
        total[t][r] *= fade;
        UNROLL for (int n = 0; n < SIZE / 8; ++n) {
          sums[t][n][2 * r] *= fade;
          sums[t][n][2 * r + 1] *= fade;
        }
        const float offset = most * scale;
        UNROLL for (int n = 0; n < kKeys / 8; ++n) {
          UNROLL for (int i = 2 * r; i < 2 * r + 2; ++i) {
            scores[t][n][i] = exp2_of(scores[t][n][i] * scale - offset);
            total[t][r] += scores[t][n][i];
          }
        }
      }
    }
    UNROLL for (int k = 0; k < kKeys / 16; ++k) {
      unsigned weights[kTiles][4];
      UNROLL for (int t = 0; t < kTiles; ++t) {
        UNROLL for (int i = 0; i < 4; ++i) {
          const float(&of)[4] = scores[t][2 * k + i / 2];
          weights[t][i] = pack2(of[i % 2 * 2], of[i % 2 * 2 + 1]);
        }
      }
      UNROLL for (int n = 0; n < SIZE / 16; ++n) {
        unsigned value[4];
        load_matrices_transposed(value, value_tile + place<SIZE>(k * 16 + lane % 16, 2 * n + lane / 16));
        UNROLL for (int t = 0; t < kTiles; ++t) {
          multiply_add(sums[t][2 * n], weights[t], value[0], value[1]);
          multiply_add(sums[t][2 * n + 1], weights[t], value[2], value[3]);
        }
      }
    }
    sync_block();  // nobody reads this tile any more when the next but one is copied
  }

  // Through the queries' place, of which a warp has its own rows, so that memory gets whole rows.
  UNROLL for (int t = 0; t < kTiles; ++t) {
    UNROLL for (int r = 0; r < 2; ++r) {
      float sum = total[t][r];
      sum += shuffle_xor(sum, 1);
      sum += shuffle_xor(sum, 2);
      const float factor = 1.0f / sum;
      const int row = (warp * kTiles + t) * 16 + r * 8 + lane / 4;
      UNROLL for (int n = 0; n < SIZE / 8; ++n) {
        *reinterpret_cast<unsigned*>(query_tile + place<SIZE>(row, n) + lane % 4 * 4) =
            pack2(sums[t][n][2 * r] * factor, sums[t][n][2 * r + 1] * factor);
      }
    }
  }
  sync_warp();
  constexpr int kChunks = SIZE / kVector;
  constexpr int kRows = kTiles * 16;
  UNROLL for (int at = lane; at < kRows * kChunks; at += kWarp) {
    const int row = warp * kRows + at / kChunks, chunk = at % kChunks;
    if (first + row < count) {
      store16(context + static_cast<long long>(start + first + row) * columns + block_y() * SIZE + chunk * kVector,
              *reinterpret_cast<const Pack*>(query_tile + place<SIZE>(row, chunk)));
    }
  }
}

// BLOCKS of them fit a multiprocessor with its registers.
#define ATTENTION(SIZE, ROWS, BLOCKS)                                                                                \
  KERNEL_OF(128, BLOCKS) void attention_h##SIZE##_q##ROWS(const half* qkv, const int* cu_seqlens, const int* tiles,          \
                                                  half* context, int columns, float scale) {                         \
    attention<SIZE, ROWS>(qkv, cu_seqlens, tiles, context, columns, scale);                                          \
  }
ATTENTION(32, 64, 4)
ATTENTION(32, 128, 2)
ATTENTION(64, 64, 4)
ATTENTION(64, 128, 2)

// Which tile of queries is whose: `tiles` [slots, 2] gets text and first query, -1 where there are no more. One block.
KERNEL_OF(1024) void attention_tiles(const int* cu_seqlens, int* tiles, int texts, int slots, int rows) {
  SHARED(shared);
  int* totals = reinterpret_cast<int*>(shared);  // a warp's
  const int lane = thread() % kWarp, warp = thread() / kWarp;
  int done = 0;
  for (int from = 0; from < texts; from += 1024) {
    const int text = from + thread();
    const int own = text < texts ? (cu_seqlens[text + 1] - cu_seqlens[text] + rows - 1) / rows : 0;
    int before = own;
    UNROLL for (int distance = 1; distance < kWarp; distance *= 2) {
      const int other = shuffle_up(before, distance);
      if (lane >= distance) before += other;
    }
    if (lane == kWarp - 1) totals[warp] = before;
    sync_block();
    int all = 0;
    for (int w = 0; w < 1024 / kWarp; ++w) {
      if (w < warp) before += totals[w];
      all += totals[w];
    }
    before += done - own;
    for (int i = 0; i < own && before + i < slots; ++i) {
      tiles[2 * (before + i)] = text;
      tiles[2 * (before + i) + 1] = i * rows;
    }
    done += all;
    sync_block();
  }
  for (int slot = done + thread(); slot < slots; slot += 1024) tiles[2 * slot] = tiles[2 * slot + 1] = -1;
}
