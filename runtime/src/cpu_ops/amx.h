// Matrices of bfloat16 and bytes on the tile registers of AMX: [16][16] sums of products with 64 bytes of each row.
//
// Panels of weights are laid out as tiles want them: a row of a tile holds the pairs or quads of 16 columns.
#pragma once

#include "bf16.h"
#include "int8.h"
#include "kernels.h"
#include "row_ops.h"
#include "simd.h"

#include <immintrin.h>

namespace {

constexpr Size kTile = 16;  // rows, and columns of 32 bits

// The compiler does not know all that tiles read of memory: what was stored before is stored.
inline void publish(const void* own = nullptr) { __asm__ volatile("" : : "r"(own) : "memory"); }

// Shapes of the tile registers of this thread, and their release: a thread that has none costs the system nothing.
// Tiles 0 to 3 are sums, [2][2] tiles; 4 and 5 what stands on the left, 6 and 7 on the right.
class Tiles {
 public:
  // `rows` of sums, and on the left; up to two tiles.
  explicit Tiles(Size rows = 2 * kTile) { set(rows); }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  void set(Size rows) {
    const auto first = static_cast<Byte>(rows < kTile ? rows : kTile);
    const auto second = static_cast<Byte>(rows > kTile ? rows - kTile : kTile);
    const Shapes shapes = {
        1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {}, {first, first, second, second, first, second, 16, 16}, {}};
    publish(&shapes);
    _tile_loadconfig(&shapes);
  }

 private:
  struct Shapes {
    Byte palette, start_row, reserved[14];
    unsigned short row_bytes[8], no_row_bytes[8];
    Byte rows[8], no_rows[8];
  };
  static_assert(sizeof(Shapes) == 64);
};

constexpr Size kPanelBytes = 4 * bgert::kPanelColumns;  // of a row of tiles

// Sums of up to 32 rows of x, `stride` bytes apart, over `depth` bytes of each.
template <bool kTwo, bool kBytes>
inline void add_tiles(const void* x, Size stride, const void* weights, Size depth) {
  const auto* left = static_cast<const Byte*>(x);
  const auto* right = static_cast<const Byte*>(weights);
  for (Size k = 0; k < depth; k += 64, left += 64, right += kTile * kPanelBytes) {
    _tile_loadd(6, right, kPanelBytes);
    _tile_loadd(4, left, stride);
    if constexpr (kBytes) {
      _tile_dpbusd(0, 4, 6);
    } else {
      _tile_dpbf16ps(0, 4, 6);
    }
    _tile_loadd(7, right + 64, kPanelBytes);
    if constexpr (kBytes) {
      _tile_dpbusd(1, 4, 7);
    } else {
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kTwo) {
      _tile_loadd(5, left + kTile * stride, stride);
      if constexpr (kBytes) {
        _tile_dpbusd(2, 5, 6);
        _tile_dpbusd(3, 5, 7);
      } else {
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
}

template <bool kTwo>
inline void store_tiles(void* out, Size stride) {
  auto* to = static_cast<Byte*>(out);
  _tile_stored(0, to, stride);
  _tile_stored(1, to + 64, stride);
  if constexpr (kTwo) {
    _tile_stored(2, to + kTile * stride, stride);
    _tile_stored(3, to + kTile * stride + 64, stride);
  }
}

// block(first row, rows, whether there are two tiles of them) for blocks of up to 32 rows.
template <class Block>
inline void for_tiles(Size rows, const Block& block) {
  constexpr Size kBoth = 2 * kTile;
  Tiles tiles(rows < kBoth ? rows : kBoth);
  for (Size row = 0; row < rows; row += kBoth) {
    const Size here = rows - row < kBoth ? rows - row : kBoth;
    if (here < kBoth && row > 0) tiles.set(here);
    if (here > kTile) {
      block.template operator()<true>(row, here);
    } else {
      block.template operator()<false>(row, here);
    }
  }
}

template <class Out>
inline void amx_bf16_panel(Size rows, const Bf16* x, const bgert::Bf16Panel& panel, Out* out, Size stride) {
  if (panel.depth % 32 != 0) return bf16_panel(rows, x, panel, out, stride);
  publish();
  for_tiles(rows, [&]<bool kTwo>(Size row, Size here) {
    _tile_loadd(0, panel.bias, 0);  // the same for each row
    _tile_loadd(1, panel.bias + kTile, 0);
    if constexpr (kTwo) {
      _tile_loadd(2, panel.bias, 0);
      _tile_loadd(3, panel.bias + kTile, 0);
    }
    add_tiles<kTwo, false>(x + row * panel.depth, 2 * panel.depth, panel.weights, 2 * panel.depth);
    Out* to = out + row * stride;
    if constexpr (sizeof(Out) == sizeof(float)) {
      store_tiles<kTwo>(to, 4 * stride);
    } else {
      alignas(64) float sums[2 * kTile * bgert::kPanelColumns];
      store_tiles<kTwo>(sums, kPanelBytes);
      for (Size r = 0; r < here; ++r) {
        for (Size n = 0; n < bgert::kPanelColumns; n += kLanes) {
          store_bf16(to + r * stride + n, gelu_of(load(sums + r * bgert::kPanelColumns + n)));
        }
      }
    }
  });
}

inline void amx_linear_int8(Size rows, const Byte* x, const bgert::Int8Panel& panel, bool with_gelu, float* out,
                            Size out_stride) {
  if (panel.depth % 64 != 0) return linear_int8(rows, x, panel, with_gelu, out, out_stride);
  const Size stride = panel.depth + sizeof(RowScale);
  publish();
  for_tiles(rows, [&]<bool kTwo>(Size row, Size here) {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (kTwo) {
      _tile_zero(2);
      _tile_zero(3);
    }
    add_tiles<kTwo, true>(x + row * stride, stride, panel.weights, panel.depth);
    alignas(64) int sums[2 * kTile * bgert::kPanelColumns];
    store_tiles<kTwo>(sums, kPanelBytes);
    for (Size r = 0; r < here; ++r) {
      RowScale scale;
      __builtin_memcpy(&scale, x + (row + r) * stride + panel.depth, sizeof scale);
      for (Size n = 0; n < bgert::kPanelColumns; n += kLanes) {
        const VecUnsigned total = wrapped(load_int(sums + r * bgert::kPanelColumns + n));
        const VecInt exact = wrapped(total - wrapped(load_int(panel.sums + n)) * scale.zero);
        const Vec value = to_float(exact) * (load(panel.scales + n) * scale.scale) + load(panel.bias + n);
        store(out + (row + r) * out_stride + n, with_gelu ? gelu_of(value) : value);
      }
    }
  });
}

}  // namespace
