// Softmax attention of one head over the tokens of one text, fp32.
#pragma once

#include "kernels.h"
#include "products.h"
#include "simd.h"

namespace {

// Rows of a matrix; `stride` counts floats.
struct Rows {
  const float* at;
  Size stride;
};

struct Output {
  float* at;
  Size stride;
  const float* factors;  // one a row
};

// c[R][N registers] = a[R][depth] * b[depth][N registers] * factors[R]
template <int R, int N>
inline void tile(Rows a, Rows b, Size depth, Output c) {
  Vec total[R][N] = {};
  add_products(a.at, a.stride, b.at, b.stride, depth, total);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) store(c.at + static_cast<Size>(r) * c.stride + n * kLanes, total[r][n] * c.factors[r]);
  }
}

// All columns of one block of R rows; `columns` is a multiple of the register width.
template <int R, int N = kTileVecs>
inline void multiply_block(Rows a, Rows b, Size depth, Output c, Size columns) {
  constexpr Size kWidth = N * kLanes;
  Size at = 0;
  for (; at + kWidth <= columns; at += kWidth) {
    tile<R, N>(a, {b.at + at, b.stride}, depth, {c.at + at, c.stride, c.factors});
  }
  if constexpr (N > 1) {
    if (at < columns) {
      multiply_block<R, N / 2>(a, {b.at + at, b.stride}, depth, {c.at + at, c.stride, c.factors}, columns - at);
    }
  }
}

template <int R = kTileRows>
inline void multiply(Size rows, Rows a, Rows b, Size depth, Output c, Size columns) {
  if (rows == R) return multiply_block<R>(a, b, depth, c, columns);
  if constexpr (R > 1) multiply<R - 1>(rows, a, b, depth, c, columns);
}

inline Size round_up(Size value, Size step) { return (value + step - 1) / step * step; }

// [rows][columns] to [columns][padded rows], zeros after the last row.
inline void transpose(Rows from, Size rows, Size columns, float* to, Size to_stride) {
  static constexpr float kZeros[kLanes] = {};
  for (Size row = 0; row < to_stride; row += kLanes) {
    const Size here = rows - row;
    const float* first = from.at + row * from.stride;
    Size column = 0;
    for (; column + kLanes <= columns; column += kLanes) {
      Vec block[kLanes];
#pragma GCC unroll 16
      for (Size i = 0; i < static_cast<Size>(kLanes); ++i) {
        block[i] = load(i < here ? first + i * from.stride + column : kZeros);
      }
      transpose_block(block);
#pragma GCC unroll 16
      for (Size i = 0; i < static_cast<Size>(kLanes); ++i) store(to + (column + i) * to_stride + row, block[i]);
    }
    for (; column < columns; ++column) {
      for (Size i = 0; i < static_cast<Size>(kLanes); ++i) {
        to[column * to_stride + row + i] = i < here ? first[i * from.stride + column] : 0.0f;
      }
    }
  }
}

// Scores of one query to weights that are not yet divided by their sum; returns 1 / sum. Past `length` they are junk.
inline float softmax_row(float* scores, Size length) {
  const Size whole = length / kLanes * kLanes;
  const bool rest = whole < length;
  const Vec tail = rest ? first_lanes(load(scores + whole), static_cast<int>(length - whole)) : Vec{};
  Vec most = rest ? tail : load(scores);
  for (Size i = 0; i < whole; i += kLanes) most = larger(most, load(scores + i));
  const float peak = largest(most);
  Vec total = {};
  for (Size i = 0; i < whole; i += kLanes) {
    const Vec weight = exp_of_negative(load(scores + i) - peak);
    total += weight;
    store(scores + i, weight);
  }
  if (rest) {
    const Vec weight = exp_of_negative(tail - peak);
    total += weight;
    store(scores + whole, weight);
  }
  return 1.0f / sum(total);
}

inline void add_row(const float* row, Size length, float* scores) {
  Size i = 0;
  for (; i + kLanes <= length; i += kLanes) store(scores + i, load(scores + i) + load(row + i));
  for (; i < length; ++i) scores[i] += row[i];
}

// Floats that `attend` needs to work in.
inline Size attention_scratch(Size length, Size size) {
  const Size padded = round_up(length, kLanes), wide = round_up(size, kLanes);
  return size * padded + kTileRows * padded + (wide == size ? 0 : (length + kTileRows) * wide);
}

// A result depends on its own text alone, down to the last bit.
inline void attend(const bgert::AttentionHead& head, float* scratch) {
  const Size padded = round_up(head.length, kLanes), wide = round_up(head.size, kLanes);
  float* keys = scratch;
  float* scores = keys + head.size * padded;
  float* copies = scores + kTileRows * padded;
  float* narrow = copies + head.length * wide;
  transpose({head.key, head.stride}, head.length, head.size, keys, padded);
  Rows values = {head.value, head.stride};
  const bool whole = wide == head.size;
  if (!whole) {  // whole registers would read and write the next head
    for (Size i = 0; i < head.length; ++i) {
      for (Size j = 0; j < wide; ++j) copies[i * wide + j] = j < head.size ? head.value[i * head.stride + j] : 0.0f;
    }
    values = {copies, wide};
  }
  float scales[kTileRows], shares[kTileRows];
  for (float& factor : scales) factor = head.scale;
  const Size blocks = (head.queries + kTileRows - 1) / kTileRows, rows = (head.queries + blocks - 1) / blocks;
  for (Size first = 0; first < head.queries; first += rows) {
    const Size here = head.queries - first < rows ? head.queries - first : rows;
    multiply(here, {head.query + first * head.stride, head.stride}, {keys, padded}, head.size,
             {scores, padded, scales}, padded);
    // As long as the text and no longer: the table of biases may end there.
    for (Size r = 0; head.bias != nullptr && r < here; ++r) {
      add_row(head.bias - (first + r), head.length, scores + r * padded);
    }
    for (Size r = 0; r < here; ++r) shares[r] = softmax_row(scores + r * padded, head.length);
    float* to = head.out + first * head.stride;
    if (whole) {
      multiply(here, {scores, padded}, values, head.length, {to, head.stride, shares}, wide);
      continue;
    }
    multiply(here, {scores, padded}, values, head.length, {narrow, wide, shares}, wide);
    for (Size r = 0; r < here; ++r) {
      for (Size j = 0; j < head.size; ++j) to[r * head.stride + j] = narrow[r * wide + j];
    }
  }
}

}  // namespace
