// What the fuzzers of the models share: random text, and checks of any model.
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

#include "tokenizer/aligned_text.h"
#include "tokenizer/batch_encoder.h"
#include "tokenizer/decoder.h"
#include "tokenizer/text_model.h"
#include "tokenizer/utf8.h"
#include "tokenizer/vocabulary.h"

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

/// Tokens with offsets: the ids of the fast path, in order and within the text; any bytes are safe.
inline void check_spans(const Tested& tested, const std::string& text, TextModel::Scratch& scratch) {
  const std::vector<char> exact(text.begin(), text.end());
  const std::string_view view(exact.data(), exact.size());
  EncodeOptions options;
  options.split_special_tokens = chance(30);
  std::vector<TokenSpan> spans, moved;
  tested.model->encode_spans(view, {options.split_special_tokens, true}, spans);
  tested.model->encode_spans(view, {options.split_special_tokens, false}, moved);
  if (spans.size() != moved.size()) fail("both offsets are of the same tokens", text);
  // A token may begin within what is no UTF-8, so there the characters of the parts are no more than the bytes.
  const std::size_t size = is_utf8(text) ? count_characters(view) : text.size();
  for (std::size_t i = 0; i < spans.size(); ++i) {
    if (spans[i].id != moved[i].id) fail("both offsets are of the same ids", text);
    for (const TokenSpan& span : {spans[i], moved[i]}) {
      if (span.start >= span.stop || span.stop > size) fail("tokens have characters of the text", text);
    }
    if (moved[i].start < spans[i].start) fail("the offsets of HF are too small, if anything", text);
    if (i > 0 && spans[i].start < spans[i - 1].start) fail("tokens are in the order of the text", text);
  }
  if (!is_utf8(text)) return;  // the fast path keeps bytes that are no UTF-8, this one replaces them
  const auto ids = encode(*tested.model, text, options, scratch);
  const auto same_id = [](const TokenSpan& span, TokenId id) { return span.id == id; };
  if (!std::equal(spans.begin(), spans.end(), ids.begin(), ids.end(), same_id)) fail("offsets change no id", text);
}

/// Any ids give UTF-8 or the index of the first that is unknown.
inline void check_decode(const Tested& tested) {
  std::vector<std::int64_t> ids(below(20));
  for (std::int64_t& id : ids) {
    id = static_cast<std::int64_t>(below(static_cast<std::size_t>(tested.largest_id) + 2)) - (chance(3) ? 1 : 0);
    if (chance(1)) id = static_cast<std::int64_t>(rng());
  }
  const auto known = [&](std::int64_t id) {
    return id >= 0 && id <= tested.largest_id && tested.model->vocabulary().token(static_cast<TokenId>(id)).has_value();
  };
  const auto unknown = std::find_if_not(ids.begin(), ids.end(), known);
  try {
    const std::string all = decode(*tested.model, ids, false);
    const std::string some = decode(*tested.model, ids, true);
    if (unknown != ids.end()) fail("unknown ids are refused", all);
    if (!is_utf8(all) || !is_utf8(some)) fail("decoded text is UTF-8", all);
  } catch (const UnknownIdError& error) {
    if (unknown == ids.end() || ids[error.index] != *unknown || error.id != *unknown) fail("the unknown id is named", {});
  }
}

inline bool same(const EncodedBatch& a, const EncodedBatch& b) {
  const auto equal = [](const auto& x, const auto& y) {
    return std::equal(x.span().begin(), x.span().end(), y.span().begin(), y.span().end());
  };
  return equal(a.ids, b.ids) && equal(a.cu_seqlens, b.cu_seqlens) && equal(a.type_ids, b.type_ids) &&
         equal(a.truncated, b.truncated);
}

/// What stays of single texts is the beginning or the end of all their tokens.
inline void check_cut(const Tested& tested, const EncodedBatch& batch, const std::vector<std::string_view>& texts,
                      const std::vector<std::string_view>& pairs, const BatchOptions& options) {
  if (!pairs.empty() || options.add_special_tokens) return;
  const auto scratch = tested.model->make_scratch();
  EncodeOptions plain;
  plain.split_special_tokens = options.split_special_tokens;
  for (std::size_t row = 0; row < texts.size(); ++row) {
    const auto full = encode(*tested.model, texts[row], plain, *scratch);
    const auto cuts = batch.cu_seqlens.span();
    const auto kept = batch.ids.span().subspan(static_cast<std::size_t>(cuts[row]),
                                               static_cast<std::size_t>(cuts[row + 1] - cuts[row]));
    if (batch.truncated.span()[row] != (kept.size() < full.size())) fail("a cut is told", texts[row]);
    const bool left = options.side == TruncationSide::kLeft;
    const std::size_t from = left ? full.size() - kept.size() : 0;
    if (!std::equal(kept.begin(), kept.end(), full.begin() + static_cast<std::ptrdiff_t>(from))) {
      fail("what stays is the beginning or the end", texts[row]);
    }
  }
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
  options.truncation = static_cast<Truncation>(below(5));
  if (chance(30)) options.most_first = below(40);
  options.side = chance(50) ? TruncationSide::kLeft : TruncationSide::kRight;
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
  check_cut(tested, *one, first, second, options);
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
