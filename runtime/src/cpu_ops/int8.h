// Matrices of 8 bits: rows of activations quantised one by one, weights quantised one by one column.
//
// A row x becomes unsigned bytes q with x = scale * (q - zero); scale and zero are the row's own, so what other rows
// hold changes nothing. Sums are exact in 32 bits on every instruction set.
#pragma once

#include "kernels.h"
#include "row_ops.h"
#include "simd.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include "neon_int8.h"
#endif

namespace {

using Byte = unsigned char;
using SignedByte = signed char;

#if !defined(__aarch64__)  // neon_int8.h has them

// total + four products a lane: `quad` holds four unsigned bytes, `quads` four signed ones for each lane.
inline VecInt add_quads(VecInt total, int quad, const SignedByte* quads) {
#if defined(__AVX512VNNI__)
  const __m512i weights = _mm512_loadu_si512(quads);
  return reinterpret_cast<VecInt>(
      _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(total), _mm512_set1_epi32(quad), weights));
#elif defined(__AVXVNNI__)
  const __m256i weights = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(quads));
  return reinterpret_cast<VecInt>(
      _mm256_dpbusd_avx_epi32(reinterpret_cast<__m256i>(total), _mm256_set1_epi32(quad), weights));
#elif defined(__AVX512BW__)
  // Pairs of 16 bits: vpmaddubsw would be one step less, but saturates.
  const __m512i weights = _mm512_loadu_si512(quads);
  const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(weights, 8), 8), odd = _mm512_srai_epi16(weights, 8);
  const __m512i sum = _mm512_add_epi32(_mm512_madd_epi16(_mm512_set1_epi32(quad & 0xFF00FF), even),
                                       _mm512_madd_epi16(_mm512_set1_epi32(quad >> 8 & 0xFF00FF), odd));
  return total + reinterpret_cast<VecInt>(sum);
#elif defined(__AVX2__)
  const __m256i weights = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(quads));
  const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(weights, 8), 8), odd = _mm256_srai_epi16(weights, 8);
  const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(_mm256_set1_epi32(quad & 0xFF00FF), even),
                                       _mm256_madd_epi16(_mm256_set1_epi32(quad >> 8 & 0xFF00FF), odd));
  return total + reinterpret_cast<VecInt>(sum);
#else
  const VecInt weights = *reinterpret_cast<const IntAt1*>(quads);
  total += (weights << 24 >> 24) * (quad & 0xFF);
  total += (weights << 16 >> 24) * (quad >> 8 & 0xFF);
  total += (weights << 8 >> 24) * (quad >> 16 & 0xFF);
  return total + (weights >> 24) * (quad >> 24 & 0xFF);
#endif
}

constexpr int kInt8Rows = kTileRows, kInt8Vecs = kTileVecs;
constexpr unsigned kByteOffset = 0;  // what rows of bytes are too small by where they are multiplied

// total += rows of x, `stride` apart, times the columns that `weights` begins with.
template <int R>
[[gnu::always_inline]] inline void add_byte_products(const Byte* x, Size stride, const SignedByte* weights, Size depth,
                                                     VecInt (&total)[R][kInt8Vecs]) {
  for (Size k = 0; k < depth; k += 4) {
    const SignedByte* quads = weights + k * bgert::kPanelColumns;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      int quad;
      __builtin_memcpy(&quad, x + static_cast<Size>(r) * stride + k, sizeof quad);
#pragma GCC unroll 2
      for (int n = 0; n < kInt8Vecs; ++n) total[r][n] = add_quads(total[r][n], quad, quads + 4 * n * kLanes);
    }
  }
}

#endif

inline Vec to_float(VecInt value) { return __builtin_convertvector(value, Vec); }

inline VecInt load_int(const int* from) {
  return *reinterpret_cast<const IntAt4*>(from);
}

// Scale and zero of a quantised row lie behind its bytes.
struct RowScale {
  float scale;
  unsigned zero;  // unsigned, as in rows that are none of ours it may be anything, and products wrap around
};
static_assert(sizeof(RowScale) == bgert::kRowScaleBytes);

// `size` floats, multiplied by `factors` if there are any, to `size` bytes and a RowScale. NaN and infinity make the
// scale NaN, so that they are not lost.
inline void quantize_row(const float* x, const float* factors, Size size, Byte* out) {
  const auto lanes = [&](Size i) { return factors != nullptr ? load(x + i) * load(factors + i) : load(x + i); };
  const auto one = [&](Size i) { return factors != nullptr ? x[i] * factors[i] : x[i]; };
  const Size whole = size / kLanes * kLanes;
  Vec most = {}, least = {}, poison = {};
  for (Size i = 0; i < whole; i += kLanes) {
    const Vec value = lanes(i);
    most = larger(most, value);
    least = value < least ? value : least;
    poison += value * 0.0f;
  }
  float high = largest(most), low = -largest(-least), bad = sum(poison);
  for (Size i = whole; i < size; ++i) {
    high = one(i) > high ? one(i) : high;
    low = one(i) < low ? one(i) : low;
    bad += one(i) * 0.0f;
  }
  const float range = high - low;
  const float inverse = range > 0.0f ? 255.0f / range : 0.0f;
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number in the low bits
  const float shift = -low * inverse + kMagic;
  unsigned zero;
  __builtin_memcpy(&zero, &shift, sizeof zero);
  zero -= 0x4B400000U;
  const float offset = static_cast<float>(static_cast<int>(zero)) + kMagic;
  const auto quantized = [&](Vec value) {
    VecInt q = wrapped(reinterpret_cast<VecUnsigned>(value * inverse + offset) - 0x4B400000U);
    q = q < 0 ? VecInt{} : q;
    return q > 255 ? VecInt{} + 255 : q;
  };
  using Bytes = Byte __attribute__((vector_size(BGERT_LANES)));
  for (Size i = 0; i < whole; i += kLanes) {
    const Bytes bytes = __builtin_convertvector(quantized(lanes(i)), Bytes);
    __builtin_memcpy(out + i, &bytes, sizeof bytes);
  }
  for (Size i = whole; i < size; ++i) out[i] = static_cast<Byte>(quantized(broadcast(one(i)))[0]);
  const RowScale scale = {range / 255.0f + bad, zero};
  __builtin_memcpy(out + size, &scale, sizeof scale);
}

// One panel of 32 columns: out = scale of row * scale of column * (x - zero) * weights + bias, GELU of it if asked.
template <int R>
inline void int8_tile(const Byte* x, const bgert::Int8Panel& panel, bool with_gelu, float* out, Size out_stride) {
  const Size stride = panel.depth + sizeof(RowScale);
  for (Size column = 0; column < bgert::kPanelColumns; column += kInt8Vecs * kLanes) {
    VecInt total[R][kInt8Vecs] = {};
    add_byte_products(x, stride, panel.weights + 4 * column, panel.depth, total);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      RowScale row;
      __builtin_memcpy(&row, x + static_cast<Size>(r) * stride + panel.depth, sizeof row);
#pragma GCC unroll 8
      for (int n = 0; n < kInt8Vecs; ++n) {
        const Size at = column + static_cast<Size>(n * kLanes);
        const VecInt exact = wrapped(wrapped(total[r][n]) - wrapped(load_int(panel.sums + at)) * (row.zero - kByteOffset));
        const Vec value = to_float(exact) * (load(panel.scales + at) * row.scale) + load(panel.bias + at);
        store(out + static_cast<Size>(r) * out_stride + at, with_gelu ? gelu_of(value) : value);
      }
    }
  }
}

template <int R = kInt8Rows>
inline void int8_rows(Size rows, const Byte* x, const bgert::Int8Panel& panel, bool with_gelu, float* out,
                      Size out_stride) {
  if (rows == R) return int8_tile<R>(x, panel, with_gelu, out, out_stride);
  if constexpr (R > 1) int8_rows<R - 1>(rows, x, panel, with_gelu, out, out_stride);
}

inline void linear_int8(Size rows, const Byte* x, const bgert::Int8Panel& panel, bool with_gelu, float* out,
                        Size out_stride) {
  if (rows == 0) return;
  const Size blocks = (rows + kInt8Rows - 1) / kInt8Rows, step = (rows + blocks - 1) / blocks;
  for (Size row = 0; row < rows; row += step) {
    const Size here = rows - row < step ? rows - row : step;
    int8_rows(here, x + row * (panel.depth + sizeof(RowScale)), panel, with_gelu, out + row * out_stride, out_stride);
  }
}

}  // namespace
