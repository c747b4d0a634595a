// Feeds the tokenizer core random and mutated bytes with random settings and checks what must always hold.
// Usage: fuzz_tokenizer SEED SECONDS
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "batch_encoder.h"
#include "bert_normalizer.h"
#include "unicode.h"
#include "utf8.h"
#include "wordpiece_model.h"

namespace {

using namespace bgert;

std::mt19937_64 rng;

std::size_t below(std::size_t n) { return static_cast<std::size_t>(rng() % n); }
bool chance(unsigned percent) { return below(100) < percent; }

template <typename T>
const T& pick(const std::vector<T>& items) {
  return items[below(items.size())];
}

char32_t random_code_point() {
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

std::string random_text(std::size_t most) {
  static const std::vector<std::string> words = {"[CLS]", "[MASK]", "hello", "World ", "unaffable", "##able", "  "};
  std::string text;
  for (std::size_t left = below(most + 1); left > 0; --left) {
    if (chance(10)) {
      text += pick(words);
    } else {
      append_utf8(random_code_point(), text);
    }
  }
  if (chance(3)) text.append(below(400), "a1 "[below(3)]);
  return text;
}

/// Flips, drops and doubles bytes, so the result is usually no UTF-8.
std::string mutated(std::string text) {
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

struct Config {
  BertNormalizer normalizer;
  std::vector<std::string> vocab;
  std::vector<AddedToken> added;
  std::shared_ptr<const WordPieceModel> model;
  TokenId largest_id = 0;
};

Config random_config() {
  Config config;
  config.normalizer = {chance(80), chance(80), std::nullopt, chance(50)};
  if (chance(50)) config.normalizer.strip_accents = chance(50);
  WordPieceOptions options;
  options.continuing_subword_prefix = pick<std::string>({"##", "##", "", "x"});
  options.max_input_chars_per_word = pick<std::size_t>({100, 100, 7, 1, 0});
  config.vocab = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ""};
  for (int i = 0; i < 200; ++i) {
    std::string piece;
    config.normalizer.normalize(random_text(3), piece);
    if (piece.empty()) continue;
    config.vocab.push_back(chance(50) ? piece : options.continuing_subword_prefix + piece);
  }
  for (char c = 'a'; c <= 'z'; ++c) config.vocab.push_back(options.continuing_subword_prefix + c);
  std::sort(config.vocab.begin() + 6, config.vocab.end());
  config.vocab.erase(std::unique(config.vocab.begin() + 6, config.vocab.end()), config.vocab.end());
  for (std::size_t i = 0; i < 5; ++i) {
    config.added.push_back({config.vocab[i], static_cast<TokenId>(i), true, false, chance(10), chance(10), false});
  }
  for (std::size_t i = below(4); i > 0; --i) {
    std::string pattern;
    const std::string content = random_text(3);
    const bool normalized = chance(50);
    config.normalizer.normalize(content, pattern);
    if (content.empty() || pattern.empty()) continue;
    const auto id = static_cast<TokenId>(config.vocab.size() + config.added.size());
    config.added.push_back({content, id, chance(50), chance(30), chance(30), chance(30), normalized});
  }
  config.largest_id = static_cast<TokenId>(config.vocab.size() + config.added.size());
  config.model = std::make_shared<WordPieceModel>(config.vocab, options, config.normalizer, config.added);
  return config;
}

[[noreturn]] void fail(const char* what, std::string_view text) {
  std::fprintf(stderr, "FAILED: %s\ntext:", what);
  for (const char c : text) std::fprintf(stderr, " %02x", static_cast<unsigned char>(c));
  std::fprintf(stderr, "\n");
  std::abort();
}

std::vector<TokenId> encode(const TextModel& model, std::string_view text, const EncodeOptions& options,
                            TextModel::Scratch& scratch) {
  // A copy of exactly this size, so that the sanitizer sees a read past its end.
  const std::vector<char> exact(text.begin(), text.end());
  std::vector<TokenId> ids{-7};
  model.encode({exact.data(), exact.size()}, options, scratch, ids);
  if (ids.front() != -7) fail("ids that were there are kept", text);
  ids.erase(ids.begin());
  return ids;
}

void check_text(const Config& config, const std::string& text, TextModel::Scratch& scratch) {
  EncodeOptions options;
  options.split_special_tokens = chance(30);
  const auto full = encode(*config.model, text, options, scratch);
  for (const TokenId id : full) {
    if (id < 0 || id > config.largest_id) fail("ids are in range", text);
  }
  const auto fresh = config.model->make_scratch();
  if (encode(*config.model, text, options, *fresh) != full) fail("a warm cache changes nothing", text);
  options.limit = below(full.size() + 2);
  const auto part = encode(*config.model, text, options, scratch);
  const std::size_t enough = std::min(full.size(), options.limit + 1);
  if (part.size() < enough || part.size() > full.size()) fail("a limit yields enough ids", text);
  if (!std::equal(part.begin(), part.end(), full.begin())) fail("a limit yields a prefix", text);
}

void check_normal_form(const Config& config, const std::string& text) {
  // The table and the step by step normaliser must agree: the fused pass over a text is the pass over its normal form.
  if (!config.normalizer.clean_text || config.added.size() != 5) return;
  EncodeOptions options;
  options.split_special_tokens = true;
  std::string normal;
  config.normalizer.normalize(text, normal);
  const BertNormalizer none{false, false, false, false};
  WordPieceOptions wordpiece;
  const WordPieceModel fused(config.vocab, wordpiece, config.normalizer, {});
  const WordPieceModel plain(config.vocab, wordpiece, none, {});
  const auto fused_scratch = fused.make_scratch();
  const auto plain_scratch = plain.make_scratch();
  if (encode(fused, text, options, *fused_scratch) != encode(plain, normal, options, *plain_scratch)) {
    fail("fused pass and normal form agree", text);
  }
}

bool same(const EncodedBatch& a, const EncodedBatch& b) {
  const auto equal = [](const auto& x, const auto& y) {
    return std::equal(x.span().begin(), x.span().end(), y.span().begin(), y.span().end());
  };
  return equal(a.ids, b.ids) && equal(a.cu_seqlens, b.cu_seqlens) && equal(a.type_ids, b.type_ids) &&
         equal(a.truncated, b.truncated);
}

void check_batch(const Config& config, const std::vector<std::string>& texts) {
  const Template single{{{2}, 0}, {}, {{3}, 0}, 0, 0};
  const Template pair{{{2}, 0}, {{3}, 0}, {{3}, 1}, 0, 1};
  const BatchEncoder encoder(config.model, single, pair);
  std::vector<std::string_view> first(texts.begin(), texts.end());
  std::vector<std::string_view> second(texts.rbegin(), texts.rend());
  if (chance(50)) std::fill(first.begin(), first.end(), first.front());
  if (chance(50)) second.clear();
  BatchOptions options;
  options.max_length = chance(20) ? kUnlimited : 3 + below(40);
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
    BatchEncoder(config.model, single, pair, total - 1).encode(first, second, options);
    fail("too many tokens are refused", texts.front());
  } catch (const BatchInputError&) {
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1;
  const double seconds = argc > 2 ? std::strtod(argv[2], nullptr) : 10;
  const auto start = std::chrono::steady_clock::now();
  std::size_t texts = 0;
  std::uint64_t round = 0;
  for (; std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds; ++round) {
    rng.seed(seed + round);
    const Config config = random_config();
    const auto scratch = config.model->make_scratch();
    std::vector<std::string> batch;
    for (int i = 0; i < 200; ++i) {
      std::string text = random_text(chance(5) ? 2000 : 40);
      if (chance(30)) text = mutated(std::move(text));
      check_text(config, text, *scratch);
      if (i < 3) check_normal_form(config, text);
      batch.push_back(std::move(text));
      ++texts;
    }
    for (int i = 0; i < 4; ++i) check_batch(config, batch);
  }
  std::printf("seed %llu: %llu rounds, %zu texts, no failure\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(round), texts);
  return 0;
}
