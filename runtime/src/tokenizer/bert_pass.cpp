#include "bert_pass.h"

#include <algorithm>
#include <cstring>

#include "unicode.h"
#include "utf8.h"

namespace bgert {

using Table = CodePointTable;

namespace {
bool is_ascii(char c) { return (static_cast<unsigned char>(c) & 0x80) == 0; }
}  // namespace

template <bool kLowercase>
void BertPass<kLowercase>::spill() {
  ids_.insert(ids_.end(), block_, block_ + filled_);
  filled_ = 0;
}

/// Hands the block over; true when no more ids are needed.
template <bool kLowercase>
bool BertPass<kLowercase>::flush() {
  spill();
  if (ids_.size() > limit_) return true;
  flush_at_ = std::min(kBlock - 1, limit_ - ids_.size()) + 1;
  return false;
}

template <bool kLowercase>
void BertPass<kLowercase>::run(std::string_view text) {
  const char* p = text.data();
  const char* const end = p + text.size();
  if (flush()) return;
  while (p < end) {
    Table::Entry entry;
    std::size_t length = 1;
    if (is_ascii(*p)) {
      entry = table_.ascii(static_cast<unsigned char>(*p));
    } else {
      const Decoded next = decode_utf8(p, end);
      entry = table_[next.code_point];
      length = next.length;
    }
    switch (entry.action()) {
      case Table::kBreak:
      case Table::kDrop:
        p += length;
        continue;
      case Table::kWord:
        push(static_cast<TokenId>(entry.payload()));
        p += length;
        break;
      default:
        p = length == 1 ? short_word(p, end) : any_word(p, end);
        if (p < end && *p == ' ') ++p;  // most words are followed by one, and no table makes it anything else
    }
    if (filled_ >= flush_at_ && flush()) return;
  }
  flush();
}

template <bool kLowercase>
bool BertPass<kLowercase>::ends_word(const char* p, const char* end) const {
  if (p == end) return true;
  const auto action = is_ascii(*p) ? table_.ascii(static_cast<unsigned char>(*p)).action()
                                   : table_[decode_utf8(p, end).code_point].action();
  return action == Table::kBreak || action == Table::kWord;
}

/// Takes a word of at most 16 ASCII letters and digits; all others are left to any_word.
template <bool kLowercase>
const char* BertPass<kLowercase>::short_word(const char* p, const char* end) {
  WordKey key;
  std::size_t length;
  if (end - p >= static_cast<std::ptrdiff_t>(WordKey::kMaxBytes)) {
    length = ascii_word<kLowercase>(p, key);
  } else {
    char padded[WordKey::kMaxBytes] = {};
    std::memcpy(padded, p, static_cast<std::size_t>(end - p));
    length = ascii_word<kLowercase>(padded, key);
  }
  if (length == 0 || !ends_word(p + length, end)) return any_word(p, end);
  look_up(key, {}, length);
  return p + length;
}

template <bool kLowercase>
void BertPass<kLowercase>::look_up(const WordKey& key, std::string_view bytes, std::size_t chars) {
  WordCache::Set& set = scratch_.cache.set(key);
  const WordCache::Entry* entry = &set.ways[0];
  if (entry->key != key) {
    entry = &set.ways[1];
    if (entry->key != key) {
      entry = insert(set, key, bytes, chars);
      if (entry == nullptr) return;
    }
  }
  std::memcpy(block_ + filled_, entry->ids, sizeof entry->ids);
  filled_ += entry->count;
}

/// Finds the ids of a word that is not in the cache; null if they are too many for it and were taken at once.
template <bool kLowercase>
const WordCache::Entry* BertPass<kLowercase>::insert(WordCache::Set& set, const WordKey& key, std::string_view bytes,
                                                     std::size_t chars) {
  if (chars <= wordpiece_.max_chars()) {
    if (const TokenId id = wordpiece_.whole_word(key); id >= 0) return &WordCache::insert(set, key, &id, 1);
  }
  char unpacked[WordKey::kMaxBytes];
  if (bytes.empty()) {  // an ASCII word: it is in the key alone
    key.unpack(unpacked);
    bytes = {unpacked, chars};
  }
  std::vector<TokenId>& pieces = scratch_.pieces;
  pieces.clear();
  segment(bytes, chars, pieces);
  if (pieces.size() <= WordCache::kMaxIds) return &WordCache::insert(set, key, pieces.data(), pieces.size());
  push_long(pieces);
  return nullptr;
}

/// Builds a word character by character, up to what ends it.
template <bool kLowercase>
const char* BertPass<kLowercase>::any_word(const char* p, const char* end) {
  scratch_.word.clear();
  chars_ = 0;
  while (p < end) {
    if (end - p >= 8) {
      const AlnumRun run = alnum_run<kLowercase>(load_eight(p));
      if (run.length != 0) {
        char bytes[8];
        store_eight(run.bytes, bytes);
        add({bytes, run.length}, run.length);
        p += run.length;
        continue;
      }
    }
    const Decoded next = decode_utf8(p, end);
    const Table::Entry entry = table_[next.code_point];
    switch (entry.action()) {
      case Table::kBreak:
      case Table::kWord:
        finish_word();
        return p;
      case Table::kCopy:
        add({p, next.length}, 1);
        break;
      case Table::kDrop:
        break;
      case Table::kMap:
        add(table_.mapped(entry), Table::mapped_chars(entry));
        break;
      case Table::kHangul: {
        const unicode::Jamo jamo = unicode::decompose_hangul(next.code_point);
        char bytes[12];
        std::size_t length = 0;
        for (int i = 0; i < jamo.count; ++i) length += encode_utf8(jamo.parts[i], bytes + length);
        add({bytes, length}, static_cast<std::size_t>(jamo.count));
        break;
      }
      case Table::kOrder:
        p = ordered_run(p, end);
        continue;
    }
    p += next.length;
  }
  finish_word();
  return p;
}

/// Takes a character that needs canonical ordering and all that can change places with it.
template <bool kLowercase>
const char* BertPass<kLowercase>::ordered_run(const char* p, const char* end) {
  const char* stop = p + decode_utf8(p, end).length;
  while (stop < end) {
    const Decoded next = decode_utf8(stop, end);
    const bool cleaned = normalizer_.clean_text && (unicode::flags(next.code_point) & unicode::kDropped) != 0;
    const std::u32string_view parts = unicode::decomposition(next.code_point);
    const char32_t first = parts.empty() ? next.code_point : parts.front();
    if (!cleaned && unicode::combining_class(first) == 0) break;
    stop += next.length;
  }
  scratch_.run.clear();
  normalizer_.normalize({p, static_cast<std::size_t>(stop - p)}, scratch_.run);
  add_plain(scratch_.run);
  return stop;
}

/// Adds text that is in normal form, ending words where it has whitespace or punctuation.
template <bool kLowercase>
void BertPass<kLowercase>::add_plain(std::string_view text) {
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    const Decoded next = decode_utf8(p, end);
    const std::string_view bytes(p, next.length);
    const auto flags = unicode::flags(next.code_point);
    const bool punctuation = (flags & unicode::kPunctuation) != 0;
    const bool space = (flags & unicode::kWhitespace) != 0;
    if (punctuation || space) finish_word();
    if (!space) add(bytes, 1);
    if (punctuation) finish_word();
    p += next.length;
  }
}

template <bool kLowercase>
void BertPass<kLowercase>::add(std::string_view bytes, std::size_t chars) {
  chars_ += chars;
  if (chars_ <= wordpiece_.max_chars()) scratch_.word.append(bytes);
}

template <bool kLowercase>
void BertPass<kLowercase>::finish_word() {
  if (chars_ == 0) return;
  if (filled_ >= kBlock) spill();
  const std::string_view word = scratch_.word;
  if (word.size() <= WordKey::kMaxBytes && chars_ <= wordpiece_.max_chars() &&
      word.find('\0') == std::string_view::npos) {
    look_up(WordKey::pack(word.data(), word.size()), word, chars_);
  } else {
    scratch_.pieces.clear();
    segment(word, chars_, scratch_.pieces);
    push_long(scratch_.pieces);
  }
  scratch_.word.clear();
  chars_ = 0;
}

template <bool kLowercase>
void BertPass<kLowercase>::segment(std::string_view bytes, std::size_t chars, std::vector<TokenId>& pieces) const {
  if (chars > wordpiece_.max_chars()) {
    pieces.push_back(wordpiece_.unk_id());
  } else {
    wordpiece_.segment(bytes, pieces);
  }
}

/// Takes the ids of a word that may have too many for the block.
template <bool kLowercase>
void BertPass<kLowercase>::push_long(const std::vector<TokenId>& pieces) {
  spill();
  ids_.insert(ids_.end(), pieces.begin(), pieces.end());
  flush_at_ = 0;  // the limit is looked at after this word
}

template class BertPass<false>;
template class BertPass<true>;

}  // namespace bgert
