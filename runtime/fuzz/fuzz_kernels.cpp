// Random shapes through every kernel that this processor has, compared with double precision: fuzz_kernels [SEED [SECONDS]]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "cpu_ops/kernels.h"

namespace {

std::mt19937_64 rng;

std::size_t below(std::size_t n) { return static_cast<std::size_t>(rng() % n); }

// A buffer of exactly this size on the heap, so that the sanitizer sees a read past its end.
std::unique_ptr<float[]> random_floats(std::size_t count, float spread) {
  std::normal_distribution<float> normal(0.0f, spread);
  auto floats = std::make_unique<float[]>(count);
  std::generate_n(floats.get(), count, [&] { return normal(rng); });
  return floats;
}

void expect(double found, double wanted, double tolerance, const char* kernel, const char* set) {
  if (std::abs(found - wanted) <= tolerance * std::max(1.0, std::abs(wanted))) return;
  std::fprintf(stderr, "FAILED: %s of %s: %.9g, expected %.9g\n", kernel, set, found, wanted);
  std::abort();
}

float from_bf16(unsigned short half) {
  const unsigned bits = static_cast<unsigned>(half) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// In float32, or with products in bfloat16: then of rounded inputs, as far as the processor multiplies those.
void check_attention(const bgert::Kernels& kernels, bool in_bf16) {
  const std::size_t length = 1 + below(below(4) == 0 ? 200 : 40), size = 1 + below(80), heads = 1 + below(3);
  const bool rounded = in_bf16 && kernels.attention_bf16_scratch(1, 1) != kernels.attention_scratch(1, 1);
  const auto scratch_of = in_bf16 ? kernels.attention_bf16_scratch : kernels.attention_scratch;
  const auto attend = in_bf16 ? kernels.attend_bf16 : kernels.attend;
  const auto as_read = [&](float value) {
    unsigned short half;
    kernels.round_bf16(&value, 1, &half);
    return double{rounded ? from_bf16(half) : value};
  };
  // Weights are rounded too, each by up to 2^-9 of itself.
  const double tolerance = rounded ? 2e-2 : 3e-5;
  const std::size_t stride = size * heads, queries = below(3) == 0 ? 1 : length;
  const auto query = random_floats(queries * stride, 2.0f), key = random_floats(length * stride, 2.0f);
  const auto value = random_floats(length * stride, 1.0f);
  const auto out = std::make_unique<float[]>(queries * stride);
  const auto scratch = std::make_unique<float[]>(scratch_of(length, size));
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  const auto table = below(2) == 0 ? random_floats(2 * length - 1, 2.0f) : nullptr;
  const float* bias = table == nullptr ? nullptr : table.get() + (length - 1);
  for (std::size_t at = 0; at < stride; at += size) {
    attend({query.get() + at, key.get() + at, value.get() + at, out.get() + at, stride, queries, length, size,
                    scale, bias},
                   scratch.get());
    for (std::size_t q = 0; q < queries; ++q) {
      std::vector<double> weights(length);
      for (std::size_t k = 0; k < length; ++k) {
        if (bias != nullptr) weights[k] = double{bias[static_cast<std::ptrdiff_t>(k) - static_cast<std::ptrdiff_t>(q)]};
        for (std::size_t i = 0; i < size; ++i) {
          weights[k] += as_read(query[q * stride + at + i]) * as_read(key[k * stride + at + i]) * double{scale};
        }
      }
      const double peak = *std::max_element(weights.begin(), weights.end());
      double total = 0;
      for (double& weight : weights) total += weight = std::exp(weight - peak);
      for (std::size_t i = 0; i < size; ++i) {
        double wanted = 0;
        for (std::size_t k = 0; k < length; ++k) wanted += weights[k] / total * as_read(value[k * stride + at + i]);
        expect(double{out[q * stride + at + i]}, wanted, tolerance, in_bf16 ? "attend_bf16" : "attend", kernels.name);
      }
    }
  }
}

void check_rows(const bgert::Kernels& kernels) {
  const std::size_t size = 1 + below(100), rows = 1 + below(50);
  const auto x = random_floats(rows * size, 3.0f), residual = random_floats(size, 1.0f);
  const auto gamma = random_floats(size, 1.0f), beta = random_floats(size, 1.0f);
  const auto out = std::make_unique<float[]>(size);
  kernels.add_layer_norm(x.get(), residual.get(), gamma.get(), beta.get(), 1e-5f, size, out.get());
  double mean = 0, variance = 0;
  const auto count = static_cast<double>(size);
  for (std::size_t i = 0; i < size; ++i) mean += (double{x[i]} + double{residual[i]}) / count;
  for (std::size_t i = 0; i < size; ++i) variance += std::pow(double{x[i]} + double{residual[i]} - mean, 2) / count;
  for (std::size_t i = 0; i < size; ++i) {
    const double centred = double{x[i]} + double{residual[i]} - mean;
    const double wanted = centred / std::sqrt(variance + 1e-5) * double{gamma[i]} + double{beta[i]};
    expect(double{out[i]}, wanted, 2e-5, "add_layer_norm", kernels.name);
  }
  kernels.gelu(x.get(), size, out.get());
  for (std::size_t i = 0; i < size; ++i) {
    const double value = double{x[i]};
    expect(double{out[i]}, value * 0.5 * std::erfc(-value / std::sqrt(2.0)), 2e-6, "gelu", kernels.name);
  }
  kernels.mean_rows(x.get(), rows, size, out.get());
  for (std::size_t i = 0; i < size; ++i) {
    double wanted = 0;
    for (std::size_t row = 0; row < rows; ++row) wanted += double{x[row * size + i]} / static_cast<double>(rows);
    expect(double{out[i]}, wanted, 2e-6, "mean_rows", kernels.name);
  }
}

double gelu(double value) { return value * 0.5 * std::erfc(-value / std::sqrt(2.0)); }

// A few of the rows by themselves have to have the same bits: multiply(first row, rows, out).
template <class Out, class Multiply>
void expect_same_alone(std::size_t rows, const Out* together, const Multiply& multiply, const char* kernel,
                       const char* set) {
  const std::size_t first = below(rows), some = 1 + below(rows - first), count = some * bgert::kPanelColumns;
  const auto alone = std::make_unique<Out[]>(count);
  multiply(first, some, alone.get());
  if (std::memcmp(alone.get(), together + first * bgert::kPanelColumns, count * sizeof(Out)) == 0) return;
  std::fprintf(stderr, "FAILED: %s of %s: %zu of %zu rows have other bits alone\n", kernel, set, some, rows);
  std::abort();
}

// One panel in each precision, from rows of exactly the size that it may read.
void check_panels(const bgert::Kernels& kernels) {
  constexpr std::size_t kColumns = bgert::kPanelColumns;
  const std::size_t rows = 1 + below(40), depth = 4 * (below(3) == 0 ? 16 * (1 + below(4)) : 1 + below(below(8) == 0 ? 400 : 40));
  const auto x = random_floats(rows * depth, 1.0f);
  const auto weights = random_floats(depth * kColumns, 3.0f / std::sqrt(static_cast<float>(depth)));
  const auto bias = random_floats(kColumns, 1.0f);
  const auto out = std::make_unique<float[]>(rows * kColumns);
  const bool with_gelu = below(2) == 0;
  const auto fp32 = [&](std::size_t first, std::size_t count, float* to) {
    kernels.linear_fp32(count, x.get() + first * depth, {weights.get(), bias.get(), depth}, with_gelu, to, kColumns);
  };
  fp32(0, rows, out.get());
  expect_same_alone(rows, out.get(), fp32, "linear_fp32", kernels.name);
  for (std::size_t i = 0; i < rows * kColumns; ++i) {
    double wanted = double{bias[i % kColumns]};
    for (std::size_t k = 0; k < depth; ++k) {
      wanted += double{x[i / kColumns * depth + k]} * double{weights[k * kColumns + i % kColumns]};
    }
    expect(double{out[i]}, with_gelu ? gelu(wanted) : wanted, 3e-5, "linear_fp32", kernels.name);
  }

  const auto x16 = std::make_unique<unsigned short[]>(rows * depth);
  const auto weights16 = std::make_unique<unsigned short[]>(depth * kColumns);
  kernels.round_bf16(x.get(), rows * depth, x16.get());
  kernels.round_bf16(weights.get(), depth * kColumns, weights16.get());
  const auto out16 = std::make_unique<unsigned short[]>(rows * kColumns);
  const auto bf16 = [&](std::size_t first, std::size_t count, float* to) {
    kernels.linear_bf16(count, x16.get() + first * depth, {weights16.get(), bias.get(), depth}, to, kColumns);
  };
  const auto gelu_bf16 = [&](std::size_t first, std::size_t count, unsigned short* to) {
    kernels.linear_gelu_bf16(count, x16.get() + first * depth, {weights16.get(), bias.get(), depth}, to, kColumns);
  };
  bf16(0, rows, out.get());
  gelu_bf16(0, rows, out16.get());
  expect_same_alone(rows, out.get(), bf16, "linear_bf16", kernels.name);
  expect_same_alone(rows, out16.get(), gelu_bf16, "linear_gelu_bf16", kernels.name);
  for (std::size_t i = 0; i < rows * kColumns; ++i) {
    double wanted = double{bias[i % kColumns]};
    for (std::size_t k = 0; k < depth; ++k) {
      wanted += double{from_bf16(x16[i / kColumns * depth + k])} *
                double{from_bf16(weights16[k / 2 * kColumns * 2 + i % kColumns * 2 + k % 2])};
    }
    expect(double{out[i]}, wanted, 3e-5, "linear_bf16", kernels.name);
    expect(double{from_bf16(out16[i])}, gelu(wanted), 1.0 / 256, "linear_gelu_bf16", kernels.name);
  }

  const std::size_t stride = depth + bgert::kRowScaleBytes;
  const auto bytes = std::make_unique<unsigned char[]>(rows * stride);
  for (std::size_t r = 0; r < rows; ++r) {
    kernels.quantize_row(x.get() + r * depth, below(2) == 0 ? nullptr : weights.get(), depth, bytes.get() + r * stride);
  }
  const auto weights8 = std::make_unique<signed char[]>(depth * kColumns);
  const auto sums = std::make_unique<int[]>(kColumns);
  for (std::size_t i = 0; i < depth * kColumns; ++i) {
    weights8[i] = static_cast<signed char>(static_cast<int>(below(255)) - 127);
    sums[i / 4 % kColumns] += weights8[i];
  }
  const auto int8 = [&](std::size_t first, std::size_t count, float* to) {
    kernels.linear_int8(count, bytes.get() + first * stride,
                        {weights8.get(), bias.get(), sums.get(), bias.get(), depth}, with_gelu, to, kColumns);
  };
  int8(0, rows, out.get());
  expect_same_alone(rows, out.get(), int8, "linear_int8", kernels.name);
  for (std::size_t i = 0; i < rows * kColumns; ++i) {
    const unsigned char* row = bytes.get() + i / kColumns * stride;
    float scale;
    int zero;
    std::memcpy(&scale, row + depth, sizeof scale);
    std::memcpy(&zero, row + depth + sizeof scale, sizeof zero);
    long total = 0;
    for (std::size_t k = 0; k < depth; ++k) {
      total += (static_cast<long>(row[k]) - zero) * weights8[k / 4 * kColumns * 4 + i % kColumns * 4 + k % 4];
    }
    const double bias_here = double{bias[i % kColumns]};
    const double wanted = static_cast<double>(total) * double{scale} * bias_here + bias_here;
    expect(double{out[i]}, with_gelu ? gelu(wanted) : wanted, 1e-5, "linear_int8", kernels.name);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const unsigned long long seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  const double seconds = argc > 2 ? std::atof(argv[2]) : 5;
  rng.seed(seed);
  std::size_t rounds = 0;
  const auto start = std::chrono::steady_clock::now();
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds) {
    for (const char* name : bgert::kKernelNames) {
      const bgert::Kernels* kernels = bgert::choose_kernels(name);
      if (kernels == nullptr) continue;
      check_attention(*kernels, false);
      check_attention(*kernels, true);
      check_rows(*kernels);
      check_panels(*kernels);
      ++rounds;
    }
  }
  std::printf("%zu rounds of random shapes agree with double precision, by", rounds);
  for (const char* name : bgert::kKernelNames) {
    if (bgert::choose_kernels(name) != nullptr) std::printf(" %s", name);
  }
  std::printf("; %s is the best\n", bgert::choose_kernels(nullptr)->name);
}
