#include "wordpiece_model.h"

#include <utility>

#include "bert_pass.h"

namespace bgert {
namespace {

AddedTokens normalized_tokens(std::vector<AddedToken> tokens, const BertNormalizer& normalizer) {
  std::vector<std::string> patterns(tokens.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) normalizer.normalize(tokens[i].content, patterns[i]);
  return {std::move(tokens), patterns};
}

AddedTokens raw_tokens(std::vector<AddedToken> tokens) {
  std::vector<std::string> patterns;
  patterns.reserve(tokens.size());
  for (const AddedToken& token : tokens) patterns.push_back(token.content);
  return {std::move(tokens), patterns};
}

}  // namespace

WordPieceModel::WordPieceModel(const std::vector<std::string>& vocab, const WordPieceOptions& options,
                               const BertNormalizer& normalizer, const std::vector<AddedToken>& added_tokens)
    : prefix_(options.continuing_subword_prefix),
      vocabulary_(vocab, added_tokens),
      normalizer_(normalizer),
      wordpiece_(vocab, options),
      table_(&normalizer_, wordpiece_) {
  AddedTokenSets sets = partition(added_tokens, vocab.size());
  id_count_ = sets.id_count;
  raw_ = raw_tokens(std::move(sets.raw));
  normalized_ = normalized_tokens(std::move(sets.normalized), normalizer_);
  if (!normalized_.empty()) split_table_.emplace(nullptr, wordpiece_);
}

std::unique_ptr<TextModel::Scratch> WordPieceModel::make_scratch() const { return std::make_unique<BertScratch>(); }

void WordPieceModel::encode(std::string_view text, const EncodeOptions& options, Scratch& scratch,
                            std::vector<TokenId>& ids) const {
  auto& own = static_cast<BertScratch&>(scratch);
  const std::size_t room = static_cast<std::size_t>(-1) - ids.size();
  const std::size_t limit = options.limit < room ? ids.size() + options.limit : static_cast<std::size_t>(-1);
  const auto run = [&]<bool kLowercase>(const CodePointTable& table, std::string_view piece) {
    BertPass<kLowercase>(table, wordpiece_, normalizer_, own, ids, limit).run(piece);
  };
  AddedTokens::Cursor raw(raw_, text, options.split_special_tokens);
  for (Segment segment; ids.size() <= limit && raw.next(segment);) {
    if (segment.is_token()) {
      ids.push_back(segment.id);
    } else if (normalized_.empty()) {
      if (normalizer_.lowercase) {
        run.template operator()<true>(table_, segment.text);
      } else {
        run.template operator()<false>(table_, segment.text);
      }
    } else {
      own.normalized.clear();
      normalizer_.normalize(segment.text, own.normalized);
      AddedTokens::Cursor cursor(normalized_, own.normalized, options.split_special_tokens);
      for (Segment part; ids.size() <= limit && cursor.next(part);) {
        if (part.is_token()) {
          ids.push_back(part.id);
        } else {
          run.template operator()<false>(*split_table_, part.text);
        }
      }
    }
  }
}

}  // namespace bgert
