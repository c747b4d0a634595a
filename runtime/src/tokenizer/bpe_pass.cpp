#include "bpe_pass.h"

#include <algorithm>
#include <cstring>

#include "char_classes.h"

namespace bgert {

static_assert(LongWordKey::kMaxBytes <= Bpe::kShort);

void BpePass::run(SplitPattern pattern, std::string_view text) {
  switch (pattern) {
    case SplitPattern::kGpt2:
      return split<SplitPattern::kGpt2>(text);
    case SplitPattern::kLlama3:
      return split<SplitPattern::kLlama3>(text);
    case SplitPattern::kQwen2:
      return split<SplitPattern::kQwen2>(text);
    case SplitPattern::kGpt4o:
      return split<SplitPattern::kGpt4o>(text);
  }
}

template <SplitPattern kPattern>
void BpePass::split(std::string_view text) {
  const char* p = text.data();
  const char* const end = p + text.size();
  if (flush()) return;
  while (p < end) {
    const char* const stop = next_word<kPattern>(p, end);
    add(p, static_cast<std::size_t>(stop - p), end);
    p = stop;
    if (filled_ >= flush_at_ && flush()) return;
  }
  flush();
}

/// What most words are, a space and ASCII letters, is found at once; but for kGpt4o, which tells the case of letters.
template <SplitPattern kPattern>
inline const char* BpePass::next_word(const char* p, const char* end) const {
  if constexpr (kPattern != SplitPattern::kGpt4o) {
    const char* const from = p + (*p == ' ' ? 1 : 0);
    const char* const stop = skip_ascii_letters(from, end);
    if (stop != from && stop < end) {
      const auto byte = static_cast<unsigned char>(*stop);
      if (byte < 0x80 && (classes_[byte] & kLetter) == 0) return stop;
    }
  }
  return word_end<kPattern>(p, end, classes_);
}

inline void BpePass::add(const char* p, std::size_t length, const char* end) {
  // A NUL at the end of a word would not be seen in its key.
  if (length > LongWordKey::kMaxBytes || p[length - 1] == '\0') return add_uncached({p, length});
  char padded[LongWordKey::kMaxBytes];
  const char* from = p;
  if (static_cast<std::size_t>(end - p) < LongWordKey::kMaxBytes) {
    std::memset(padded, 0, sizeof padded);
    std::memcpy(padded, p, length);
    from = padded;
  }
  const LongWordKey key = LongWordKey::load(from, length);
  LongWordCache::Set& set = scratch_.cache.set(key);
  for (const LongWordCache::Entry& entry : set.ways) {
    if (entry.key == key) {
      std::memcpy(block_ + filled_, entry.ids, sizeof entry.ids);
      filled_ += entry.count;
      return;
    }
  }
  insert(set, key, {p, length});
}

void BpePass::insert(LongWordCache::Set& set, const LongWordKey& key, std::string_view word) {
  TokenId found[Bpe::kShort];
  const std::size_t count = bpe_.segment_short(word, found);
  if (count > LongWordCache::kMaxIds) {
    spill();
    ids_.insert(ids_.end(), found, found + count);
    flush_at_ = 0;  // the limit is looked at after this word
    return;
  }
  LongWordCache::insert(set, key, found, count);
  std::memcpy(block_ + filled_, found, count * sizeof *found);
  filled_ += count;
}

void BpePass::add_uncached(std::string_view word) {
  spill();
  bpe_.segment(word, scratch_.buffers, ids_);
  flush_at_ = 0;
}

void BpePass::spill() {
  ids_.insert(ids_.end(), block_, block_ + filled_);
  filled_ = 0;
}

/// Hands the block over; true when no more ids are needed.
bool BpePass::flush() {
  spill();
  if (ids_.size() > limit_) return true;
  flush_at_ = std::min(kBlock - 1, limit_ - ids_.size()) + 1;
  return false;
}

}  // namespace bgert
