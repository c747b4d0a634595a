#include "unigram_pass.h"

#include <algorithm>
#include <cstring>

#include "grapheme.h"
#include "unicode.h"
#include "utf8.h"

namespace bgert {
namespace {

constexpr std::size_t kMostKept = 1 << 20;  // bytes of a buffer that wait for the next text

bool is_ascii(char c) { return (static_cast<unsigned char>(c) & 0x80) == 0; }

}  // namespace

using Table = UnigramTable;

UnigramPass::UnigramPass(const UnigramParts& parts, UnigramScratch& scratch, std::vector<TokenId>& ids,
                         std::size_t limit, bool split_special_tokens)
    : parts_(parts),
      scratch_(scratch),
      ids_(ids),
      limit_(limit),
      split_special_tokens_(split_special_tokens),
      content_(scratch.run + kWordMark.size()),
      to_(content_) {
  std::memcpy(scratch.run, kWordMark.data(), kWordMark.size());
  scratch.flagged.clear();
  scratch.lattice.reset();
}

void UnigramPass::run(std::string_view text) {
  const char* p = text.data();
  const char* const end = p + text.size();
  while (p < end && !enough()) {
    const auto byte = static_cast<unsigned char>(*p);
    if (parts_.table.plain(byte)) {
      p = ascii_word(p, end);
    } else if (ascii_space(p, end)) {
      ++p;
    } else {
      p = any_run(p, end);
    }
  }
}

/// Whether there is a space that is no part of a longer cluster; false also where that takes longer to find out.
bool UnigramPass::ascii_space(const char* p, const char* end) const {
  return is_ascii(*p) && parts_.table.ascii(static_cast<unsigned char>(*p)).bits == Table::kSpace &&
         (p + 1 == end || is_ascii(p[1]));
}

void UnigramPass::run_normalized(std::string_view text) {
  add_text(text);
  if (!enough()) finish_run();
}

/// Takes a word of at most 32 plain ASCII characters with a space behind it; all others are left to any_run.
const char* UnigramPass::ascii_word(const char* p, const char* end) {
  const char* q = p;
  while (q < end && parts_.table.plain(static_cast<unsigned char>(*q))) ++q;
  const auto length = static_cast<std::size_t>(q - p);
  if (length > LongWordKey::kMaxBytes) return any_run(p, end);
  if (q < end && !ascii_space(q, end)) return any_run(p, end);
  LongWordKey key{};
  if (end - p >= static_cast<std::ptrdiff_t>(LongWordKey::kMaxBytes)) {
    key = LongWordKey::load(p, length);
  } else {
    char padded[LongWordKey::kMaxBytes] = {};
    std::memcpy(padded, p, length);
    key = LongWordKey::load(padded, length);
  }
  LongWordCache::Set& set = scratch_.cache.set(key);
  for (const LongWordCache::Entry& entry : set.ways) {
    if (entry.key == key) {
      ids_.insert(ids_.end(), entry.ids, entry.ids + entry.count);
      return q;
    }
  }
  std::memcpy(content_, p, length);
  look_up(key, {scratch_.run, kWordMark.size() + length});
  return q;
}

/// Takes characters up to the first that is whitespace, which it takes too.
const char* UnigramPass::any_run(const char* p, const char* end) {
  Decoded now = decode_utf8(p, end);
  Table::Entry entry = parts_.table[now.code_point];
  for (;;) {
    const char* const q = p + now.length;
    Decoded next{0, 0};
    Table::Entry after;
    if (q < end) {
      next = decode_utf8(q, end);
      after = parts_.table[next.code_point];
    }
    if (entry.glues() || after.attaches()) {
      p = cluster(p, end);
      if (p >= end || enough()) break;
      now = decode_utf8(p, end);
      entry = parts_.table[now.code_point];
      continue;
    }
    add(entry, p, now.length);
    p = q;
    if (entry.action() == Table::kSpace) return p;
    if (p >= end || enough()) break;
    now = next;
    entry = after;
  }
  if (p >= end) finish_run();
  return p;
}

/// Takes a cluster that may have more than one character.
const char* UnigramPass::cluster(const char* p, const char* end) {
  const std::size_t size = grapheme::cluster_size(p, end);
  if (size < kLongCluster) {
    if (const auto whole = parts_.charsmap.transform({p, size})) {
      add_text(*whole);
      return p + size;
    }
  }
  for (const char* const stop = p + size; p < stop && !enough();) {
    const Decoded next = decode_utf8(p, stop);
    add(parts_.table[next.code_point], p, next.length);
    p += next.length;
  }
  return p;
}

inline void UnigramPass::add(Table::Entry entry, const char* p, std::size_t length) {
  if (entry.flagged()) flagged_ = true;
  switch (entry.action()) {
    case Table::kCopy:
      for (std::size_t i = 0; i < length; ++i) to_[i] = p[i];
      to_ += length;
      break;
    case Table::kDrop:
      return;
    case Table::kSpace:
      finish_run();
      return;
    case Table::kMap: {
      const std::string_view mapped = parts_.table.mapped(entry);
      std::memcpy(to_, mapped.data(), mapped.size());
      to_ += mapped.size();
      break;
    }
    default:
      add_text(parts_.table.mapped(entry));
      return;
  }
  if (filled() >= UnigramScratch::kRoom) pass_on();
}

/// Adds normalised text of any kind.
void UnigramPass::add_text(std::string_view normalized) {
  for (const char *p = normalized.data(), *end = p + normalized.size(); p < end && !enough();) {
    const Decoded next = decode_utf8(p, end);
    if ((unicode::flags(next.code_point) & unicode::kWhitespace) != 0) {
      finish_run();
    } else {
      // Only what is really whitespace or a mark matters here, so a token may begin anywhere.
      if (!parts_.normalized.empty()) flagged_ = true;
      if (next.code_point == kWordMarkCodePoint) marked_ = true;
      std::memcpy(to_, p, next.length);
      to_ += next.length;
      if (filled() >= UnigramScratch::kRoom) pass_on();
    }
    p += next.length;
  }
}

/// Empties the buffer, which is full, in the middle of a run.
void UnigramPass::pass_on() {
  const std::string_view text(content_, filled());
  if (flagged_) {
    scratch_.flagged.append(text);
    to_ = content_;
    return;
  }
  // The last character stays: a token that follows may ask for it.
  const std::size_t stays = decode_utf8_before(content_, to_).length;
  words(text.substr(0, text.size() - stays));
  std::memmove(content_, to_ - stays, stays);
  to_ = content_ + stays;
}

void UnigramPass::finish_run() {
  const std::size_t size = filled();
  if (flagged_ || marked_ || word_open_) {
    if (flagged_) {
      flagged_run();
    } else {
      words({content_, size});
    }
    close_word();
    flagged_ = marked_ = false;
    to_ = content_;
    return;
  }
  if (size == 0) return;
  const std::string_view marked(scratch_.run, kWordMark.size() + size);
  to_ = content_;
  if (size <= LongWordKey::kMaxBytes && std::memchr(content_, 0, size) == nullptr) {
    const LongWordKey key = LongWordKey::load(content_, size);
    for (const LongWordCache::Entry& entry : scratch_.cache.set(key).ways) {
      if (entry.key == key) {
        ids_.insert(ids_.end(), entry.ids, entry.ids + entry.count);
        return;
      }
    }
    look_up(key, marked);
  } else {
    scratch_.lattice.segment(parts_.unigram, marked, ids_);
  }
}

/// Splits a run at the tokens in it.
void UnigramPass::flagged_run() {
  scratch_.flagged.append(content_, filled());
  AddedTokens::Cursor cursor(parts_.normalized, scratch_.flagged, split_special_tokens_);
  for (Segment part; !enough() && cursor.next(part);) {
    if (part.is_token()) {
      close_word();
      ids_.push_back(part.id);
    } else {
      words(part.text);
    }
  }
  scratch_.flagged.clear();
  if (scratch_.flagged.capacity() > kMostKept) std::string().swap(scratch_.flagged);
}

/// Splits text of a run before each word mark. The last word stays open.
void UnigramPass::words(std::string_view text) {
  while (!text.empty() && !enough()) {
    const std::size_t mark = text.find(kWordMark);
    feed(text.substr(0, mark));
    if (mark == std::string_view::npos) return;
    close_word();
    scratch_.lattice.feed(parts_.unigram, kWordMark, ids_);
    word_open_ = true;
    text.remove_prefix(mark + kWordMark.size());
  }
}

/// Adds text without word marks to the open word, or opens one.
void UnigramPass::feed(std::string_view text) {
  if (text.empty()) return;
  if (!word_open_) scratch_.lattice.feed(parts_.unigram, kWordMark, ids_);
  word_open_ = true;
  while (!text.empty() && !enough()) {
    scratch_.lattice.feed(parts_.unigram, text.substr(0, UnigramScratch::kRoom), ids_);
    text.remove_prefix(std::min(UnigramScratch::kRoom, text.size()));
  }
}

void UnigramPass::close_word() {
  // With enough ids the word may be incomplete, and no more are needed.
  if (word_open_ && !enough()) scratch_.lattice.finish(parts_.unigram, ids_);
  word_open_ = false;
}

/// Finds the ids of a word that is not in the cache.
void UnigramPass::look_up(const LongWordKey& key, std::string_view marked) {
  const std::size_t before = ids_.size();
  scratch_.lattice.segment(parts_.unigram, marked, ids_);
  const std::size_t count = ids_.size() - before;
  if (count <= LongWordCache::kMaxIds) LongWordCache::insert(scratch_.cache.set(key), key, ids_.data() + before, count);
}

}  // namespace bgert
