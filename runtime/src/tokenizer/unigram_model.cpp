#include "unigram_model.h"

#include <algorithm>
#include <bitset>
#include <utility>

#include "unicode.h"
#include "utf8.h"

namespace bgert {
namespace {

std::vector<std::string> contents(const std::vector<AddedToken>& tokens) {
  std::vector<std::string> patterns;
  patterns.reserve(tokens.size());
  for (const AddedToken& token : tokens) patterns.push_back(token.content);
  return patterns;
}

std::vector<std::string> normal_forms(const std::vector<AddedToken>& tokens, const PrecompiledCharsmap& charsmap) {
  std::vector<std::string> patterns(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) charsmap.normalize(tokens[i].content, patterns[i]);
  return patterns;
}

std::bitset<256> first_bytes(const std::vector<std::string>& patterns) {
  std::bitset<256> bytes;
  for (const std::string& pattern : patterns) {
    if (!pattern.empty()) bytes.set(static_cast<unsigned char>(pattern.front()));
  }
  return bytes;
}

bool has_space(std::string_view text) {
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    const Decoded next = decode_utf8(p, end);
    if ((unicode::flags(next.code_point) & unicode::kWhitespace) != 0) return true;
    p += next.length;
  }
  return false;
}

}  // namespace

UnigramModel::UnigramModel(std::string_view file, const std::vector<AddedToken>& added_tokens)
    : UnigramModel(UnigramFile(file), added_tokens) {}

UnigramModel::UnigramModel(const UnigramFile& file, const std::vector<AddedToken>& added_tokens)
    : UnigramModel(file, added_tokens, partition(added_tokens, file.pieces.size())) {}

UnigramModel::UnigramModel(const UnigramFile& file, const std::vector<AddedToken>& added_tokens, AddedTokenSets tokens)
    : id_count_(tokens.id_count),
      vocabulary_(file.pieces, added_tokens),
      charsmap_(file.charsmap),
      unigram_(file.pieces, file.scores, file.unk_id),
      patterns_(normal_forms(tokens.normalized, charsmap_)),
      raw_(tokens.raw, contents(tokens.raw)),
      normalized_(std::move(tokens.normalized), patterns_),
      table_(charsmap_, first_bytes(patterns_)),
      parts_{table_, unigram_, charsmap_, normalized_},
      parts_without_tokens_{table_, unigram_, charsmap_, none_},
      spaced_(std::any_of(patterns_.begin(), patterns_.end(), has_space)) {}

std::unique_ptr<TextModel::Scratch> UnigramModel::make_scratch() const { return std::make_unique<UnigramScratch>(); }

void UnigramModel::encode(std::string_view text, const EncodeOptions& options, Scratch& scratch,
                          std::vector<TokenId>& ids) const {
  auto& own = static_cast<UnigramScratch&>(scratch);
  const std::size_t room = static_cast<std::size_t>(-1) - ids.size();
  const std::size_t limit = options.limit < room ? ids.size() + options.limit : static_cast<std::size_t>(-1);
  const bool split = options.split_special_tokens;
  AddedTokens::Cursor raw(raw_, text, split);
  for (Segment segment; ids.size() <= limit && raw.next(segment);) {
    if (segment.is_token()) {
      ids.push_back(segment.id);
    } else if (!spaced_) {
      UnigramPass(parts_, own, ids, limit, split).run(segment.text);
    } else {
      std::string normal;
      charsmap_.normalize(segment.text, normal);
      AddedTokens::Cursor cursor(normalized_, normal, split);
      for (Segment part; ids.size() <= limit && cursor.next(part);) {
        if (part.is_token()) {
          ids.push_back(part.id);
        } else {
          UnigramPass(parts_without_tokens_, own, ids, limit, split).run_normalized(part.text);
        }
      }
    }
  }
}

}  // namespace bgert
