// Feeds the byte-level BPE model random and mutated bytes with random vocabularies and settings, and files that are none.
// Usage: fuzz_bpe SEED SECONDS
#include <algorithm>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tokenizer/bpe_model.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/byte_order.h"
#include "tokenizer/char_classes.h"
#include "tokenizer/nfc.h"
#include "fuzz_common.h"
#include "hostile.h"

namespace {

using namespace bgert;
using namespace bgert::fuzz;

std::string random_text(std::size_t most) {
  static const std::vector<std::string> words = {"<s>", "<mask>", " the", "don't", "IT'S", "12345", "\r\n", "  ", "ing", "\u0301"};
  std::string text;
  for (std::size_t left = below(most + 1); left > 0; --left) {
    if (chance(25)) {
      text += pick(words);
    } else {
      append_utf8(random_code_point(), text);
    }
  }
  if (chance(3)) text.append(below(400), "a1 \n'"[below(5)]);
  return text;
}

struct Vocabulary256 {
  std::vector<std::string> tokens;
  std::vector<Merge> merges;
};

/// Every byte, and tokens that random merges make of them.
Vocabulary256 random_vocabulary() {
  Vocabulary256 made;
  std::map<std::string, TokenId> ids;
  const auto add = [&](const std::string& token) {
    const auto [found, added] = ids.try_emplace(token, static_cast<TokenId>(made.tokens.size()));
    if (added) made.tokens.push_back(token);
    return found->second;
  };
  for (unsigned byte = 0; byte < 256; ++byte) {
    std::string letter;
    append_utf8(byte_letter(static_cast<unsigned char>(byte)), letter);
    add(letter);
  }
  std::map<std::pair<TokenId, TokenId>, bool> seen;
  const std::string frequent = "ating' 12\n\xC3\x81";
  const auto part = [&]() -> TokenId {
    if (chance(50)) return static_cast<TokenId>(static_cast<unsigned char>(frequent[below(frequent.size())]));
    return static_cast<TokenId>(below(made.tokens.size()));
  };
  for (std::size_t i = below(300); i > 0; --i) {
    const TokenId left = part(), right = part();
    if (!seen.try_emplace({left, right}, true).second) continue;
    const std::string whole = made.tokens[static_cast<std::size_t>(left)] + made.tokens[static_cast<std::size_t>(right)];
    made.merges.push_back({left, right, add(whole)});
  }
  std::shuffle(made.merges.begin(), made.merges.end(), rng);
  if (chance(30)) made.tokens.push_back("");
  return made;
}

std::string file_of(const Vocabulary256& vocabulary) {
  std::string tokens;
  for (const std::string& token : vocabulary.tokens) tokens.append(token).push_back('\0');
  std::string file = "BGERTBPE";
  append_u32(1, file);
  append_u32(static_cast<std::uint32_t>(vocabulary.tokens.size()), file);
  append_u32(static_cast<std::uint32_t>(vocabulary.merges.size()), file);
  append_u64(tokens.size(), file);
  for (const Merge& merge : vocabulary.merges) {
    for (const TokenId id : {merge.left, merge.right, merge.merged}) append_u32(static_cast<std::uint32_t>(id), file);
  }
  return file + tokens;
}

BpeOptions random_options() {
  return {static_cast<SplitPattern>(below(4)), chance(50), chance(40), chance(40), chance(50), chance(50)};
}

template <SplitPattern kPattern>
void check_words(const std::string& text) {
  const std::vector<char> exact(text.begin(), text.end());
  const char* const end = exact.data() + exact.size();
  for (const char* p = exact.data(); p < end;) {
    const char* const stop = word_end<kPattern>(p, end, char_classes());
    if (stop <= p || stop > end) fail("words are of the text and not empty", text);
    p = stop;
  }
}

/// The merges of a word, taken one after the other as they are defined.
std::vector<TokenId> slow_merges(const Vocabulary256& vocabulary, std::string_view word) {
  std::vector<TokenId> ids;
  for (const char byte : word) ids.push_back(static_cast<TokenId>(static_cast<unsigned char>(byte)));
  for (;;) {
    std::size_t rank = vocabulary.merges.size(), place = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      for (std::size_t r = 0; r < rank; ++r) {
        if (vocabulary.merges[r].left == ids[i] && vocabulary.merges[r].right == ids[i + 1]) {
          rank = r;
          place = i;
        }
      }
    }
    if (rank == vocabulary.merges.size()) return ids;
    ids[place] = vocabulary.merges[rank].merged;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(place) + 1);
  }
}

void check_merges(const Vocabulary256& vocabulary, const std::string& file) {
  const Bpe bpe(BpeFile(file), false);
  BpeBuffers buffers;
  const std::string letters = "ating' 12\n\xC3\x81";
  for (int i = 0; i < 4; ++i) {
    std::string word;
    for (std::size_t left = 1 + below(70); left > 0; --left) word += letters[below(letters.size())];
    std::vector<TokenId> ids;
    bpe.segment(word, buffers, ids);
    if (ids != slow_merges(vocabulary, word)) fail("merges are taken by rank", word);
  }
}

/// What is said to be in normal form is, and normal text stays as it is.
void check_nfc(const std::string& text) {
  std::string normal, again;
  append_nfc(text, normal);
  append_nfc(normal, again);
  if (normal != again) fail("the normal form of normal text is itself", text);
  if (is_utf8(text) && is_quickly_nfc(text) && normal != text) fail("what is quickly normal is normal", text);
  AlignedText aligned = align(text, 0);
  normalize_nfc(aligned);
  if (to_utf8(aligned) != normal) fail("both ways to normal text are one", text);
}

/// Spans hold what they promise: within the text, and without whitespace at their ends where that was asked.
void check_bpe_spans(const Tested& tested, const std::string& text, TextModel::Scratch& scratch) {
  const std::vector<char> exact(text.begin(), text.end());
  const std::string_view view(exact.data(), exact.size());
  EncodeOptions options;
  options.split_special_tokens = chance(30);
  std::vector<TokenSpan> hf, own;
  tested.model->encode_spans(view, {options.split_special_tokens, true}, hf);
  tested.model->encode_spans(view, {options.split_special_tokens, false}, own);
  if (hf.size() != own.size()) fail("both offsets are of the same tokens", text);
  const std::size_t size = is_utf8(text) ? count_characters(view) : text.size();
  for (std::size_t i = 0; i < hf.size(); ++i) {
    if (hf[i].id != own[i].id) fail("both offsets are of the same ids", text);
    for (const TokenSpan& span : {hf[i], own[i]}) {
      if (span.start > span.stop || span.stop > size) fail("tokens are within the text", text);
    }
    if (i > 0 && own[i].start < own[i - 1].start) fail("tokens are in the order of the text", text);
  }
  if (!is_utf8(text)) return;
  const auto ids = encode(*tested.model, text, options, scratch);
  const auto same_id = [](const TokenSpan& span, TokenId id) { return span.id == id; };
  if (!std::equal(hf.begin(), hf.end(), ids.begin(), ids.end(), same_id)) fail("offsets change no id", text);
}

void check_hostile_files(const std::string& file) {
  const auto make = [&file] {
    std::string other = file;
    for (std::size_t i = below(3); i > 0; --i) other = mutated(std::move(other));
    if (chance(50)) {
      const std::size_t at = below(std::min<std::size_t>(other.size(), 4000));
      other[at] = static_cast<char>(below(256));
    }
    if (chance(10)) other.resize(below(other.size()));
    return std::make_shared<const BpeModel>(other, random_options(), hostile_tokens(256, random_text));
  };
  check_hostile_model(make, random_text);
}

}  // namespace

int main(int argc, char** argv) {
  return run(argc, argv, [] {
    const Vocabulary256 vocabulary = random_vocabulary();
    const std::string file = file_of(vocabulary);
    std::vector<AddedToken> added;
    const auto id = [&added, &vocabulary] { return static_cast<TokenId>(vocabulary.tokens.size() + added.size()); };
    for (const char* content : {"<s>", "<mask>", "  ", "e\u0301", " the"}) {
      if (chance(50)) added.push_back({content, id(), chance(50), chance(30), chance(30), chance(30), chance(50)});
    }
    const Tested tested{std::make_shared<BpeModel>(file, random_options(), added), id()};
    check_merges(vocabulary, file);
    const auto scratch = tested.model->make_scratch();
    std::vector<std::string> batch;
    for (int i = 0; i < 100; ++i) {
      std::string text = random_text(chance(5) ? 2000 : 40);
      if (chance(30)) text = mutated(std::move(text));
      check_words<SplitPattern::kGpt2>(text);
      check_words<SplitPattern::kLlama3>(text);
      check_words<SplitPattern::kQwen2>(text);
      check_words<SplitPattern::kGpt4o>(text);
      check_text(tested, text, *scratch);
      check_bpe_spans(tested, text, *scratch);
      check_nfc(text);
      check_decode(tested);
      batch.push_back(std::move(text));
    }
    const Template single{{{2}, 0}, {}, {{3}, 0}, 0, 0};
    const Template pair{{{2}, 0}, {{3}, 0}, {{3}, 1}, 0, 1};
    for (int i = 0; i < 4; ++i) check_batch(tested, single, pair, batch);
    for (int i = 0; i < 3; ++i) check_hostile_files(file);
    return batch.size();
  });
}
