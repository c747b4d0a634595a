// One pass over a text in normal form: words by a regular expression, and their ids by a cache or by merging.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bpe.h"
#include "long_word_cache.h"
#include "split_pattern.h"
#include "text_model.h"

namespace bgert {

/// What a thread keeps between texts.
struct BpeScratch final : TextModel::Scratch {
  LongWordCache cache;
  BpeBuffers buffers;
  std::string normalized, prefixed;
};

class BpePass {
 public:
  /// Ids go to `ids`; the pass may stop once there are more than `limit`.
  BpePass(const Bpe& bpe, const std::uint8_t* classes, BpeScratch& scratch, std::vector<TokenId>& ids,
          std::size_t limit)
      : bpe_(bpe), classes_(classes), scratch_(scratch), ids_(ids), limit_(limit) {}

  void run(SplitPattern pattern, std::string_view text);

 private:
  static constexpr std::size_t kBlock = 256;

  template <SplitPattern kPattern>
  void split(std::string_view text);
  template <SplitPattern kPattern>
  const char* next_word(const char* p, const char* end) const;
  void add(const char* p, std::size_t length, const char* end);
  void insert(LongWordCache::Set& set, const LongWordKey& key, std::string_view word);
  void add_uncached(std::string_view word);
  void spill();
  bool flush();

  const Bpe& bpe_;
  const std::uint8_t* classes_;
  BpeScratch& scratch_;
  std::vector<TokenId>& ids_;
  std::size_t limit_;
  std::size_t filled_ = 0;  // of block_
  std::size_t flush_at_ = kBlock;
  TokenId block_[kBlock + LongWordCache::kMaxIds];
};

}  // namespace bgert
