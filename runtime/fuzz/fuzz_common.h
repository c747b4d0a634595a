// What the fuzzers of the two models share: random text, and checks of any model.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/batch_encoder.h"
#include "tokenizer/text_model.h"
#include "tokenizer/utf8.h"

namespace bgert::fuzz {

inline std::mt19937_64 rng;

inline std::size_t below(std::size_t n) { return static_cast<std::size_t>(rng() % n); }
inline bool chance(unsigned percent) { return below(100) < percent; }

template <typename T>
const T& pick(const std::vector<T>& items) {
  return items[below(items.size())];
}

inline char32_t random_code_point() {
  // Characters that need canonical ordering, stand alone or vanish, which plain chance would hardly meet.
  static const std::vector<char32_t> special = {
      0,      9,      0x20,   0x85,    0xA0,    0xAD,    0x130,   0x301,   0x323,   0x344,   0x37E,  0x8D4,
      0xF73,  0x1B44, 0x1FEF, 0x200B,  0x200D,  0x226E,  0x302A,  0x302E,  0x3099,  0x4E00,  0xAC01, 0xA953,
      0xF900, 0xFEFF, 0xFFFD, 0x11235, 0x1D15E, 0x1D165, 0x1D16E, 0x1D1BF, 0x1F468, 0x2F800, '[',    ']'};
  switch (below(6)) {
    case 0:
    case 1:
      return static_cast<char32_t>(below(128));
    case 2:
      return pick(special);
    case 3:
      return static_cast<char32_t>(below(0x3000));
    default: {
      const auto cp = static_cast<char32_t>(below(0x110000));
      return cp >= 0xD800 && cp < 0xE000 ? U'x' : cp;
    }
  }
}

/// Flips, drops and doubles bytes, so the result is usually no UTF-8.
inline std::string mutated(std::string text) {
  for (std::size_t i = below(4) + 1; i > 0 && !text.empty(); --i) {
    const std::size_t at = below(text.size());
    switch (below(3)) {
      case 0:
        text[at] = static_cast<char>(below(256));
        break;
      case 1:
        text.erase(at, below(3) + 1);
        break;
      default:
        text.insert(at, text.substr(at, below(5)));
    }
  }
  return text;
}

[[noreturn]] inline void fail(const char* what, std::string_view text) {
  std::fprintf(stderr, "FAILED: %s\ntext:", what);
  for (const char c : text) std::fprintf(stderr, " %02x", static_cast<unsigned char>(c));
  std::fprintf(stderr, "\n");
  std::abort();
}

inline std::vector<TokenId> encode(const TextModel& model, std::string_view text, const EncodeOptions& options,
                            TextModel::Scratch& scratch) {
  // A copy of exactly this size, so that the sanitizer sees a read past its end.
  const std::vector<char> exact(text.begin(), text.end());
  std::vector<TokenId> ids{-7};
  model.encode({exact.data(), exact.size()}, options, scratch, ids);
  if (ids.front() != -7) fail("ids that were there are kept", text);
  ids.erase(ids.begin());
  return ids;
}

/// A model and the largest id that it may yield.
struct Tested {
  std::shared_ptr<const TextModel> model;
  TokenId largest_id = 0;
};

inline void check_text(const Tested& tested, const std::string& text, TextModel::Scratch& scratch) {
  EncodeOptions options;
  options.split_special_tokens = chance(30);
  const auto full = encode(*tested.model, text, options, scratch);
  for (const TokenId id : full) {
    if (id < 0 || id > tested.largest_id) fail("ids are in range", text);
  }
  const auto fresh = tested.model->make_scratch();
  if (encode(*tested.model, text, options, *fresh) != full) fail("a warm cache changes nothing", text);
  options.limit = below(full.size() + 2);
  const auto part = encode(*tested.model, text, options, scratch);
  const std::size_t enough = std::min(full.size(), options.limit + 1);
  if (part.size() < enough || part.size() > full.size()) fail("a limit yields enough ids", text);
  if (!std::equal(part.begin(), part.end(), full.begin())) fail("a limit yields a prefix", text);
}

inline bool same(const EncodedBatch& a, const EncodedBatch& b) {
  const auto equal = [](const auto& x, const auto& y) {
    return std::equal(x.span().begin(), x.span().end(), y.span().begin(), y.span().end());
  };
  return equal(a.ids, b.ids) && equal(a.cu_seqlens, b.cu_seqlens) && equal(a.type_ids, b.type_ids) &&
         equal(a.truncated, b.truncated);
}

inline void check_batch(const Tested& tested, const Template& single, const Template& pair,
                        const std::vector<std::string>& texts) {
  const BatchEncoder encoder(tested.model, single, pair);
  std::vector<std::string_view> first(texts.begin(), texts.end());
  std::vector<std::string_view> second(texts.rbegin(), texts.rend());
  if (chance(50)) std::fill(first.begin(), first.end(), first.front());
  if (chance(50)) second.clear();
  BatchOptions options;
  options.max_length = chance(20) ? kUnlimited : std::max(single.size(), pair.size()) + below(40);
  options.truncation = static_cast<Truncation>(below(4));
  options.add_special_tokens = chance(80);
  options.split_special_tokens = chance(20);
  const auto run = [&](std::size_t threads) -> std::unique_ptr<EncodedBatch> {
    options.threads = threads;
    try {
      return std::make_unique<EncodedBatch>(encoder.encode(first, second, options));
    } catch (const BatchInputError&) {
      return nullptr;  // only_first or only_second cannot remove enough
    }
  };
  const auto one = run(1);
  const auto four = run(4);
  if ((one == nullptr) != (four == nullptr)) fail("threads agree on errors", texts.front());
  if (one == nullptr) return;
  if (!same(*one, *four)) fail("threads change nothing", texts.front());
  const auto cuts = one->cu_seqlens.span();
  if (cuts.size() != texts.size() + 1 || cuts.back() != static_cast<std::int32_t>(one->ids.size)) {
    fail("offsets cover the ids", texts.front());
  }
  for (std::size_t row = 0; row < texts.size(); ++row) {
    const auto length = static_cast<std::size_t>(cuts[row + 1] - cuts[row]);
    if (cuts[row + 1] < cuts[row]) fail("offsets ascend", texts[row]);
    if (options.truncation != Truncation::kNone && length > options.max_length) fail("rows fit", texts[row]);
  }
  const std::size_t total = one->ids.size;
  if (total == 0) return;
  try {
    BatchEncoder(tested.model, single, pair, total - 1).encode(first, second, options);
    fail("too many tokens are refused", texts.front());
  } catch (const BatchInputError&) {
  }
}

/// Runs rounds, each with a seed of its own, until the time is over. Arguments: SEED SECONDS
template <typename Round>
int run(int argc, char** argv, const Round& round) {
  const std::uint64_t seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  const double seconds = argc > 2 ? std::strtod(argv[2], nullptr) : 10;
  const auto start = std::chrono::steady_clock::now();
  std::size_t texts = 0;
  std::uint64_t rounds = 0;
  for (; std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds; ++rounds) {
    rng.seed(seed + rounds);
    texts += round();
  }
  std::printf("seed %llu: %llu rounds, %zu texts, no failure\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(rounds), texts);
  return 0;
}

}  // namespace bgert::fuzz
