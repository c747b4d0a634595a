// One register of floats, as wide as the instruction set this file is compiled for.
//
// Everything has internal linkage and no standard header is included: the kernels are compiled once for each
// instruction set, and an inline function shared between the copies could end up in the wrong one.
#pragma once

#if defined(__AVX512F__)
#define BGERT_LANES 16
#define BGERT_TILE_ROWS 12
#elif defined(__AVX2__)
#define BGERT_LANES 8
#define BGERT_TILE_ROWS 6
#else
#define BGERT_LANES 4
#define BGERT_TILE_ROWS 6
#endif

namespace {

using Size = decltype(sizeof(0));

constexpr int kLanes = BGERT_LANES;
// Rows of a tile and registers a row: with what they are multiplied by, what the register file holds.
constexpr int kTileRows = BGERT_TILE_ROWS;
#if defined(__aarch64__)
constexpr int kTileVecs = 4;
#else
constexpr int kTileVecs = 2;
#endif

using Vec = float __attribute__((vector_size(4 * BGERT_LANES)));
using VecInt = int __attribute__((vector_size(4 * BGERT_LANES)));
using VecUnsigned = unsigned __attribute__((vector_size(4 * BGERT_LANES)));  // for sums that may wrap around
// What may lie anywhere. Typedefs: in `using` Clang drops the alignment, and its loads fault.
typedef Vec Unaligned __attribute__((aligned(4), may_alias));
typedef VecInt IntAt1 __attribute__((aligned(1), may_alias));
typedef VecInt IntAt2 __attribute__((aligned(2), may_alias));
typedef VecInt IntAt4 __attribute__((aligned(4), may_alias));
static_assert(alignof(Unaligned) == 4 && alignof(IntAt1) == 1 && alignof(IntAt2) == 2 && alignof(IntAt4) == 4);

inline Vec load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
inline void store(float* to, Vec value) { *reinterpret_cast<Unaligned*>(to) = value; }
inline VecUnsigned wrapped(VecInt value) { return reinterpret_cast<VecUnsigned>(value); }
inline VecInt wrapped(VecUnsigned value) { return reinterpret_cast<VecInt>(value); }
inline Vec broadcast(float value) { return value - Vec{}; }
inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

// The first `count` lanes; the others are below them, so that e to their power is nothing.
inline Vec first_lanes(Vec value, int count) {
  VecInt lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return lane < count ? value : broadcast(-__builtin_inff());
}

// Lanes of two registers by number, b's after a's.
#if defined(__clang__)
#define BGERT_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define BGERT_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, VecInt{__VA_ARGS__})
#endif

// Lane i takes lane i ^ Mask.
template <int Mask>
inline Vec exchanged(Vec value) {
#if BGERT_LANES == 16
  return BGERT_SHUFFLE(value, value, 0 ^ Mask, 1 ^ Mask, 2 ^ Mask, 3 ^ Mask, 4 ^ Mask, 5 ^ Mask, 6 ^ Mask, 7 ^ Mask,
                       8 ^ Mask, 9 ^ Mask, 10 ^ Mask, 11 ^ Mask, 12 ^ Mask, 13 ^ Mask, 14 ^ Mask, 15 ^ Mask);
#elif BGERT_LANES == 8
  return BGERT_SHUFFLE(value, value, 0 ^ Mask, 1 ^ Mask, 2 ^ Mask, 3 ^ Mask, 4 ^ Mask, 5 ^ Mask, 6 ^ Mask, 7 ^ Mask);
#else
  return BGERT_SHUFFLE(value, value, 0 ^ Mask, 1 ^ Mask, 2 ^ Mask, 3 ^ Mask);
#endif
}

// a0 b0 a1 b1 ... of the lower halves, and of the upper ones.
inline Vec interleave_low(Vec a, Vec b) {
#if BGERT_LANES == 16
  return BGERT_SHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif BGERT_LANES == 8
  return BGERT_SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
#else
  return BGERT_SHUFFLE(a, b, 0, 4, 1, 5);
#endif
}

inline Vec interleave_high(Vec a, Vec b) {
#if BGERT_LANES == 16
  return BGERT_SHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif BGERT_LANES == 8
  return BGERT_SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#else
  return BGERT_SHUFFLE(a, b, 2, 6, 3, 7);
#endif
}

// Halves are folded onto each other: the order of a sum is fixed by the instruction set alone.
template <int Mask = kLanes / 2>
inline float sum(Vec value) {
  if constexpr (Mask == 0) {
    return value[0];
  } else {
    return sum<Mask / 2>(value + exchanged<Mask>(value));
  }
}

template <int Mask = kLanes / 2>
inline float largest(Vec value) {
  if constexpr (Mask == 0) {
    return value[0];
  } else {
    return largest<Mask / 2>(larger(value, exchanged<Mask>(value)));
  }
}

// In place, [lanes][lanes]: after log2(lanes) perfect shuffles of the rows, rows are columns.
inline void transpose_block(Vec (&rows)[kLanes]) {
  for (int step = 1; step < kLanes; step *= 2) {
    Vec next[kLanes];
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = interleave_low(rows[i], rows[i + kLanes / 2]);
      next[2 * i + 1] = interleave_high(rows[i], rows[i + kLanes / 2]);
    }
    for (int i = 0; i < kLanes; ++i) rows[i] = next[i];
  }
}

// e^x for x <= 0: x = n ln 2 + r, |r| <= ln 2 / 2, Taylor series of e^r to r^7 (relative error below 6e-9).
// Values below e^-87 become e^-87.
inline Vec exp_of_negative(Vec x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number in the low bits
  x = x < -87.0f ? broadcast(-87.0f) : x;  // written so that NaN stays NaN
  const Vec shifted = x * 1.44269504089f + kMagic;
  const Vec n = shifted - kMagic;
  Vec r = x - n * 0.693145751953125f;  // ln 2 in two parts; n times the first is exact
  r = r - n * 1.42860677e-6f;
  Vec p = r * (1.0f / 5040) + (1.0f / 720);
  p = p * r + (1.0f / 120);
  p = p * r + (1.0f / 24);
  p = p * r + (1.0f / 6);
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  // The magic's bits shift out. Of NaN come any bits, and the product is NaN.
  const VecUnsigned exponent = (reinterpret_cast<VecUnsigned>(shifted) << 23) + (127U << 23);
  return p * reinterpret_cast<Vec>(exponent);
}

}  // namespace
