// Feeds the WordPiece model random and mutated bytes with random settings and checks what must always hold.
// Usage: fuzz_wordpiece SEED SECONDS
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "tokenizer/bert_normalizer.h"
#include "fuzz_common.h"
#include "hostile.h"
#include "tokenizer/wordpiece_model.h"

namespace {

using namespace bgert;
using namespace bgert::fuzz;

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
    const bool known = std::any_of(config.added.begin(), config.added.end(),
                                   [&content](const AddedToken& token) { return token.content == content; });
    if (content.empty() || pattern.empty() || known) continue;
    const auto id = static_cast<TokenId>(config.vocab.size() + config.added.size());
    config.added.push_back({content, id, chance(50), chance(30), chance(30), chance(30), normalized});
  }
  config.largest_id = static_cast<TokenId>(config.vocab.size() + config.added.size());
  config.model = std::make_shared<WordPieceModel>(config.vocab, options, config.normalizer, config.added);
  return config;
}

void check_hostile_settings() {
  const auto make = [] {
    std::vector<std::string> vocab = {chance(95) ? "[UNK]" : ""};
    for (std::size_t i = below(60); i > 0; --i) vocab.push_back(chance(10) ? pick(vocab) : random_text(3));
    if (chance(30)) vocab.push_back("##" + std::string(below(6000), 'a'));
    if (chance(5)) vocab.resize(below(20) == 0 ? kMostTokens + below(2) : below(1000));
    if (chance(2)) vocab.clear();
    WordPieceOptions options;
    if (chance(3)) options.unk_token = random_text(2);
    options.continuing_subword_prefix = chance(70) ? "##" : random_text(2);
    options.max_input_chars_per_word = hostile_size();
    BertNormalizer normalizer{chance(80), chance(80), std::nullopt, chance(50)};
    if (chance(50)) normalizer.strip_accents = chance(50);
    return std::make_shared<const WordPieceModel>(vocab, options, normalizer, hostile_tokens(vocab.size(), random_text));
  };
  check_hostile_model(make, random_text);
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

}  // namespace

int main(int argc, char** argv) {
  return run(argc, argv, [] {
    const Config config = random_config();
    const Tested tested{config.model, config.largest_id};
    const auto scratch = config.model->make_scratch();
    std::vector<std::string> batch;
    for (int i = 0; i < 200; ++i) {
      std::string text = random_text(chance(5) ? 2000 : 40);
      if (chance(30)) text = mutated(std::move(text));
      check_text(tested, text, *scratch);
      check_spans(tested, text, *scratch);
      check_decode(tested);
      if (i < 3) check_normal_form(config, text);
      batch.push_back(std::move(text));
    }
    const Template single{{{2}, 0}, {}, {{3}, 0}, 0, 0};
    const Template pair{{{2}, 0}, {{3}, 0}, {{3}, 1}, 0, 1};
    for (int i = 0; i < 4; ++i) check_batch(tested, single, pair, batch);
    for (int i = 0; i < 2; ++i) check_hostile_settings();
    return batch.size();
  });
}
