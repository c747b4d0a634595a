// One pass from a piece of text to ids, through a CodePointTable and a WordCache.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "ascii_word.h"
#include "bert_normalizer.h"
#include "code_point_table.h"
#include "text_model.h"
#include "word_cache.h"
#include "wordpiece.h"

namespace bgert {

/// What one thread keeps between texts.
struct BertScratch final : TextModel::Scratch {
  WordCache cache;
  std::string word;
  std::string run;
  std::string normalized;
  std::vector<TokenId> pieces;
};

template <bool kLowercase>
class BertPass {
 public:
  /// Ids go to `ids`; the pass may stop once there are more than `limit`.
  BertPass(const CodePointTable& table, const WordPiece& wordpiece, const BertNormalizer& normalizer,
           BertScratch& scratch, std::vector<TokenId>& ids, std::size_t limit)
      : table_(table), wordpiece_(wordpiece), normalizer_(normalizer), scratch_(scratch), ids_(ids), limit_(limit) {}

  void run(std::string_view text);

 private:
  static constexpr std::size_t kBlock = 256;

  bool ends_word(const char* p, const char* end) const;
  const char* short_word(const char* p, const char* end);
  const char* any_word(const char* p, const char* end);
  const char* ordered_run(const char* p, const char* end);
  void add_plain(std::string_view text);
  void add(std::string_view bytes, std::size_t chars);
  void finish_word();
  const WordCache::Entry* insert(WordCache::Set& set, const WordKey& key, std::string_view bytes, std::size_t chars);
  void look_up(const WordKey& key, std::string_view bytes, std::size_t chars);
  void segment(std::string_view bytes, std::size_t chars, std::vector<TokenId>& pieces) const;
  void push_long(const std::vector<TokenId>& pieces);
  void push(TokenId id) { block_[filled_++] = id; }
  void spill();
  bool flush();

  const CodePointTable& table_;
  const WordPiece& wordpiece_;
  const BertNormalizer& normalizer_;
  BertScratch& scratch_;
  std::vector<TokenId>& ids_;
  std::size_t limit_;
  std::size_t chars_ = 0;   // of the word in scratch_.word, which is not stored when it is too long
  std::size_t filled_ = 0;  // of block_
  std::size_t flush_at_ = kBlock;
  TokenId block_[kBlock + WordCache::kMaxIds];
};

extern template class BertPass<false>;
extern template class BertPass<true>;

}  // namespace bgert
