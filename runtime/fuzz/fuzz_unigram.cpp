// Feeds the Unigram model random and mutated bytes, vocabularies, charsmaps and files, and compares it with a plain
// implementation of the same rules. Usage: fuzz_unigram SEED SECONDS
#include <bit>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/byte_order.h"
#include "fuzz_common.h"
#include "hostile.h"
#include "tokenizer/precompiled_charsmap.h"
#include "tokenizer/unicode.h"
#include "tokenizer/unigram.h"
#include "tokenizer/unigram_model.h"

namespace {

using namespace bgert;
using namespace bgert::fuzz;

char32_t code_point() {
  static const std::vector<char32_t> special = {
      '\r',   '\n',   ' ',    '<',    0x300, 0x301, 0x600, 0x915, 0x94D, 0x200D, 0x2581, 0x3000, 0x1100, 0x1161,
      0x11A8, 0xAC00, 0xFF1C, 0xA9,   'a',   'a',   'b',   'b',   'c',   0x4E00, 0x4E01, 0x85,   0x1F1E6};
  return chance(80) ? pick(special) : random_code_point();
}

std::string random_text(std::size_t most) {
  static const std::vector<std::string> words = {"<mask>", "<s>", "ab", "abc ", "aaaa", " \xE2\x96\x81", "foo bar"};
  std::string text;
  for (std::size_t left = below(most + 1); left > 0; --left) {
    if (chance(15)) {
      text += pick(words);
    } else {
      append_utf8(code_point(), text);
    }
  }
  if (chance(1)) text.append(below(20000), "ac "[below(3)]);
  if (below(200) == 0) {
    for (std::size_t i = below(8000); i > 0; --i) text += "ab";
  }
  return text;
}

/// A charsmap blob of a few rules: each node of its trie has a block of 256 units, which is simple.
std::string random_charsmap() {
  std::vector<std::uint32_t> units(256);
  std::unordered_map<std::string, std::uint32_t> nodes{{"", 0}};
  std::string replacements;
  const auto node_of = [&](const std::string& prefix, const auto& self) -> std::uint32_t {
    if (const auto found = nodes.find(prefix); found != nodes.end()) return found->second;
    const std::uint32_t parent = self(prefix.substr(0, prefix.size() - 1), self);
    const auto byte = static_cast<unsigned char>(prefix.back());
    const std::uint32_t unit = (parent ^ (units[parent] >> 10)) ^ byte;
    const auto base = static_cast<std::uint32_t>(units.size());
    units.resize(units.size() + 256);
    units[unit] = byte | (unit ^ base) << 10;
    return nodes[prefix] = unit;
  };
  units[0] = 256U << 10;
  units.resize(512);
  for (std::size_t i = below(30); i > 0; --i) {
    std::string key;
    for (std::size_t j = below(2) + 1; j > 0; --j) append_utf8(code_point(), key);
    if (key.find('\0') != std::string::npos) continue;
    const std::uint32_t unit = node_of(key, node_of);
    units[unit ^ (units[unit] >> 10)] = 1U << 31 | static_cast<std::uint32_t>(replacements.size());
    units[unit] |= 1U << 8;
    std::string replacement = chance(20) ? "" : random_text(chance(5) ? 40 : 3).substr(0, 200);
    std::erase(replacement, '\0');  // of this one alone: each of the others has to keep its end
    replacements += replacement + '\0';
  }
  if (!is_utf8(replacements)) return {};
  std::string blob;
  append_u32(static_cast<std::uint32_t>(4 * units.size()), blob);
  for (const std::uint32_t unit : units) append_u32(unit, blob);
  if (chance(15)) {
    for (std::size_t i = below(60); i > 0; --i) blob[4 + below(blob.size() - 4)] = static_cast<char>(below(256));
  }
  return blob + replacements;
}

struct Config {
  std::vector<std::string> vocab;
  std::vector<double> scores;
  std::string charsmap;
  std::vector<AddedToken> added;
  std::string file;
};

Config random_config() {
  static const std::vector<double> scores = {-1, -2, -2.5, -3, -3, -7.25, 0, 30};
  Config config;
  config.vocab = {"<s>", "<pad>", "</s>", "<unk>", "a", "b", "\xE2\x96\x81", "\xE2\x96\x81" "ab", "<mask>"};
  for (std::size_t i = below(200); i > 0; --i) {
    std::string piece = random_text(4);
    std::erase(piece, '\0');
    config.vocab.push_back(piece.size() > 40 ? "aaa" : piece);
  }
  const bool positive = chance(10);
  for (std::size_t i = 0; i < config.vocab.size(); ++i) {
    config.scores.push_back(i < 4 ? 0 : scores[below(scores.size() - (positive ? 0 : 1))] + (positive ? 40 : 0));
  }
  if (chance(85)) config.charsmap = random_charsmap();
  const auto last = static_cast<TokenId>(config.vocab.size());
  for (TokenId i = 0; i < 4; ++i) config.added.push_back({config.vocab[static_cast<std::size_t>(i)], i, true});
  config.added.push_back({"<mask>", 8, true, false, true, chance(20), chance(70)});
  if (chance(40)) config.added.push_back({"abc", last, false, chance(50), chance(50), chance(50), chance(50)});
  if (chance(20)) config.added.push_back({"foo bar", last + 1, false, false, false, false, true});
  std::string& file = config.file = "BGERTUNI";
  std::string pieces;
  for (const std::string& piece : config.vocab) pieces += piece + '\0';
  append_u32(1, file);
  append_u32(3, file);
  append_u64(config.vocab.size(), file);
  append_u64(pieces.size(), file);
  append_u64(config.charsmap.size(), file);
  for (const double score : config.scores) append_u64(std::bit_cast<std::uint64_t>(score), file);
  file += pieces + config.charsmap;
  return config;
}

/// The rules as they are written down, one step after the other.
class Plain {
 public:
  explicit Plain(const Config& config) : charsmap_(config.charsmap), scores_(config.scores) {
    for (std::size_t i = 0; i < config.vocab.size(); ++i) {
      longest_ = std::max(longest_, config.vocab[i].size());
      if (!config.vocab[i].empty()) ids_[config.vocab[i]] = static_cast<TokenId>(i);
    }
    AddedTokenSets sets = partition(config.added, config.vocab.size());
    std::vector<std::string> raw, normal(sets.normalized.size());
    for (const AddedToken& token : sets.raw) raw.push_back(token.content);
    for (std::size_t i = 0; i < normal.size(); ++i) charsmap_.normalize(sets.normalized[i].content, normal[i]);
    raw_ = {std::move(sets.raw), raw};
    normalized_ = {std::move(sets.normalized), normal};
    for (const double score : scores_) unk_score_ = std::min(unk_score_, score - 10);
  }

  std::vector<TokenId> encode(std::string_view text, bool split) const {
    std::vector<TokenId> ids;
    AddedTokens::Cursor raw(raw_, text, split);
    for (Segment segment; raw.next(segment);) {
      if (segment.is_token()) {
        ids.push_back(segment.id);
        continue;
      }
      std::string normal;
      charsmap_.normalize(segment.text, normal);
      AddedTokens::Cursor cursor(normalized_, normal, split);
      for (Segment part; cursor.next(part);) {
        if (part.is_token()) {
          ids.push_back(part.id);
        } else {
          words(part.text, ids);
        }
      }
    }
    return ids;
  }

 private:
  void words(std::string_view text, std::vector<TokenId>& ids) const {
    std::string word;
    const auto end_word = [&] {
      if (!word.empty()) segment(word, ids);
      word.clear();
    };
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
      const Decoded next = decode_utf8(p, end);
      if ((unicode::flags(next.code_point) & unicode::kWhitespace) != 0) {
        end_word();
      } else if (next.code_point == kWordMarkCodePoint) {
        end_word();
        word = kWordMark;
      } else {
        if (word.empty()) word = kWordMark;
        word.append(p, next.length);
      }
      p += next.length;
    }
    end_word();
  }

  void segment(const std::string& word, std::vector<TokenId>& ids) const {
    struct Node {
      double score = 0;
      std::size_t start = static_cast<std::size_t>(-1);
      TokenId id = 0;
    };
    std::vector<Node> nodes(word.size() + 1);
    for (std::size_t i = 0; i < word.size();) {
      const std::size_t size = decode_utf8(word.data() + i, word.data() + word.size()).length;
      const auto reach = [&](std::size_t length, double score, TokenId id) {
        Node& node = nodes[i + length];
        const double total = score + nodes[i].score;
        if (node.start == static_cast<std::size_t>(-1) || total > node.score) node = {total, i, id};
      };
      bool single = false;
      for (std::size_t length = 1; length <= std::min(word.size() - i, longest_); ++length) {
        const auto found = ids_.find(word.substr(i, length));
        if (found == ids_.end()) continue;
        reach(length, scores_[static_cast<std::size_t>(found->second)], found->second);
        single = single || length == size;
      }
      if (!single) reach(size, unk_score_, 3);
      i += size;
    }
    struct Piece {
      TokenId id;
      std::size_t start, end;
    };
    std::vector<Piece> pieces;  // from the last one on; a charsmap may make a word of megabytes, all of it unknown
    for (std::size_t end = word.size(); end > 0; end = nodes[end].start) {
      const Node& node = nodes[end];
      if (node.id == 3 && !pieces.empty() && pieces.back().id == 3) {
        pieces.back().start = node.start;
      } else {
        pieces.push_back({node.id, node.start, end});
      }
    }
    for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
      const auto found = ids_.find(word.substr(piece->start, piece->end - piece->start));
      ids.push_back(found == ids_.end() ? 3 : found->second);
    }
  }

  PrecompiledCharsmap charsmap_;
  std::vector<double> scores_;
  std::unordered_map<std::string, TokenId> ids_;
  AddedTokens raw_, normalized_;
  std::size_t longest_ = 0;
  double unk_score_ = std::numeric_limits<double>::infinity();
};

void damage(std::string& file) {
  for (std::size_t i = below(20) + 1; i > 0; --i) {
    file[chance(40) ? below(40) : below(file.size())] = static_cast<char>(chance(30) ? 0xFF : below(256));
  }
  if (chance(20)) file.resize(below(file.size()));
}

/// Random bytes seldom make a score of this size, and sums of such scores are infinite.
void set_huge_score(std::string& file) {
  static const std::vector<double> huge = {-1.5e308, 1.5e308, -1.1e290, -1e290, 1e290};
  std::string score;
  append_u64(std::bit_cast<std::uint64_t>(pick(huge)), score);
  file.replace(40 + 8 * below(static_cast<std::size_t>(load_u64(file.data() + 16))), 8, score);
}

void check_damaged_file(const Config& config) {
  const auto make = [&config] {
    std::string file = config.file;
    if (chance(20)) {
      set_huge_score(file);
    } else if (chance(70)) {
      damage(file);
    }
    const std::vector<char> exact(file.begin(), file.end());
    const auto tokens = hostile_tokens(config.vocab.size(), random_text);
    return std::make_shared<const UnigramModel>(std::string_view(exact.data(), exact.size()), tokens);
  };
  check_hostile_model(make, random_text);
}

}  // namespace

int main(int argc, char** argv) {
  return run(argc, argv, []() -> std::size_t {
    const Config config = random_config();
    std::shared_ptr<const UnigramModel> model;
    try {
      model = std::make_shared<UnigramModel>(config.file, config.added);
    } catch (const std::invalid_argument&) {
      return 0;  // an added token that normalises to nothing
    }
    const Tested tested{model, static_cast<TokenId>(config.vocab.size()) + 1};
    const Plain plain(config);
    const auto scratch = model->make_scratch();
    std::vector<std::string> batch;
    for (int i = 0; i < 100; ++i) {
      std::string text = random_text(chance(3) ? 4000 : 40);
      const bool split = chance(20);
      EncodeOptions options;
      options.split_special_tokens = split;
      if (encode(*model, text, options, *scratch) != plain.encode(text, split)) fail("plain rules agree", text);
      if (chance(30)) text = mutated(std::move(text));
      check_text(tested, text, *scratch);
      check_spans(tested, text, *scratch);
      check_decode(tested);
      batch.push_back(std::move(text));
    }
    const Template single{{{0}, 0}, {}, {{2}, 0}, 0, 0};
    const Template pair{{{0}, 0}, {{2, 2}, 0}, {{2}, 0}, 0, 0};
    for (int i = 0; i < 2; ++i) check_batch(tested, single, pair, batch);
    for (int i = 0; i < 3; ++i) check_damaged_file(config);
    return batch.size();
  });
}
