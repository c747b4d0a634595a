// Softmax attention of one head over the tokens of one text: products in bfloat16, softmax and sums in float32.
//
// Queries, keys, values and weights are rounded to bfloat16 for the products. Where the processor multiplies no bfloat16
// this is `attend`, which is as fast there.
#pragma once

#include "bf16_blocks.h"
#include "kernels.h"
#include "packed_attention.h"
#include "simd.h"

namespace {

#if defined(__AVX512BF16__)

// 2^x for x that is not much above 0, to within 4e-6: weights are rounded to 2^-9. NaN stays NaN.
inline Vec exp2_of(Vec x) {
  const auto value = reinterpret_cast<__m512>(x);
  // x less the whole number below it. With a mask, as GCC's headers warn of themselves without.
  const Vec f = reinterpret_cast<Vec>(_mm512_maskz_reduce_ps(0xFFFF, value, _MM_FROUND_TO_NEG_INF));
  Vec p = f * 1.3534167e-2f + 5.2011464e-2f;
  p = p * f + 2.4144275e-1f;
  p = p * f + 6.9300383e-1f;
  p = p * f + 1.0000026f;
  return reinterpret_cast<Vec>(_mm512_maskz_scalef_ps(0xFFFF, reinterpret_cast<__m512>(p), value));
}

// Scores of one query to bfloat16 weights that are not yet divided by their sum, zeros from `length` to `padded`;
// returns 1 / sum. `factor` is what scores are multiplied by, and log2 e.
inline float softmax_bf16(const float* scores, Size length, Size padded, float factor, float* weights) {
  const Size whole = length / 16 * 16, rest = length - whole;
  const Vec none = broadcast(-__builtin_inff());
  Vec most = none, second = none;
  Size i = 0;
  for (; i + 32 <= whole; i += 32) {
    most = larger(most, load(scores + i));
    second = larger(second, load(scores + i + 16));
  }
  if (i < whole) most = larger(most, load(scores + i));
  if (rest > 0) second = larger(second, first_lanes(load(scores + whole), static_cast<int>(rest)));
  const float shift = largest(larger(most, second)) * factor;
  Vec total = {}, total2 = {};
  for (i = 0; i + 32 <= length; i += 32) {
    const Vec low = exp2_of(load(scores + i) * factor - shift), high = exp2_of(load(scores + i + 16) * factor - shift);
    total += low;
    total2 += high;
    store(weights + i / 2, reinterpret_cast<Vec>(_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(high),
                                                                     reinterpret_cast<__m512>(low))));
  }
  for (; i < padded; i += 32) {
    const auto kept = [&](Size at) {
      const Vec weight = exp2_of(load(scores + at) * factor - shift);
      return at >= length ? Vec{}
                          : reinterpret_cast<Vec>(_mm512_maskz_mov_ps(first_of(length - at), reinterpret_cast<__m512>(weight)));
    };
    const Vec low = kept(i), high = kept(i + 16);
    total += low;
    total2 += high;
    store(weights + i / 2, reinterpret_cast<Vec>(_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(high),
                                                                     reinterpret_cast<__m512>(low))));
  }
  return 1.0f / sum(total + total2);
}

// A result depends on its own text alone, down to the last bit.
inline void attend_bf16(const bgert::AttentionHead& head, float* scratch) {
  const AttentionShape shape(head.length, head.size);
  float* keys = scratch;
  float* values = keys + shape.key_dwords();
  float* queries = values + shape.value_dwords();
  float* scores = queries + shape.query_dwords();
  float* weights = scores + kBlockRows * shape.score_stride;
  float* out = weights + kBlockRows * shape.weight_stride;
  pack_keys({head.key, head.stride}, head.length, head.size, shape, keys);
  pack_values({head.value, head.stride}, head.length, head.size, shape, values);
#if defined(__AMX_BF16__)
  const Tiles tiles;
#endif
  constexpr float kLog2E = 1.44269504089f;
  const float factor = head.bias == nullptr ? head.scale * kLog2E : kLog2E;
  for (Size first = 0; first < head.queries; first += kBlockRows) {
    const Size here = head.queries - first < kBlockRows ? head.queries - first : kBlockRows;
    for (Size r = 0; r < kBlockRows; ++r) {
      const float* from = head.query + (first + r) * head.stride;
      for (Size column = 0; column < shape.deep; column += 32) {
        store(queries + (r * shape.deep + column) / 2, r < here ? pairs_of(from + column, head.size - column) : Vec{});
      }
    }
    multiply_keys(here, queries, keys, shape, scores);
    float shares[kBlockRows];
    for (Size r = 0; r < here; ++r) {
      float* row = scores + r * shape.score_stride;
      if (head.bias != nullptr) {
        for (Size i = 0; i < shape.keys; i += 16) store(row + i, load(row + i) * head.scale);
        add_row(head.bias - (first + r), head.length, row);
      }
      shares[r] = softmax_bf16(row, head.length, shape.keys, factor, weights + r * shape.weight_stride);
    }
    for (Size r = here; r < kBlockRows; ++r) {  // of no query, but multiplied all the same
      for (Size i = 0; i < shape.keys / 2; i += 16) store(weights + r * shape.weight_stride + i, Vec{});
    }
    multiply_values(here, weights, values, shape, out);
    for (Size r = 0; r < here; ++r) {
      float* to = head.out + (first + r) * head.stride;
      for (Size column = 0; column < shape.wide; column += 16) {
        const Vec value = load(out + r * shape.wide + column) * shares[r];
        _mm512_mask_storeu_ps(to + column, first_of(head.size - column), reinterpret_cast<__m512>(value));
      }
    }
  }
}

#else

inline Size attention_bf16_scratch(Size length, Size size) { return attention_scratch(length, size); }
inline void attend_bf16(const bgert::AttentionHead& head, float* scratch) { attend(head, scratch); }

#endif

}  // namespace
