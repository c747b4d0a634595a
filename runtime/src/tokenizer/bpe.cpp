#include "bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <unordered_set>

#include "byte_level.h"

namespace bgert {
namespace {

constexpr std::size_t kMostKept = std::size_t{1} << 16;  // symbols of a buffer that waits for the next word
constexpr std::uint32_t kNobody = static_cast<std::uint32_t>(-1);

/// Bytes that no UTF-8 has need no token.
bool in_utf8(unsigned byte) { return byte != 0xC0 && byte != 0xC1 && byte < 0xF5; }

}  // namespace

Bpe::Bpe(const BpeFile& file, bool whole_words)
    : lengths_(file.pieces.size()),
      table_(std::bit_ceil(2 * file.merges.size() + 2)),
      shift_(64 - static_cast<unsigned>(std::countr_zero(table_.size()))),
      whole_words_(whole_words) {
  bytes_.fill(-1);
  std::unordered_set<std::string_view> seen;
  std::string bytes;
  for (std::size_t i = 0; i < file.pieces.size(); ++i) {
    const std::string_view piece = file.pieces[i];
    if (piece.empty()) continue;
    if (!seen.insert(piece).second) throw std::invalid_argument("a token is there twice, the second time as " + std::to_string(i));
    bytes.clear();
    if (!append_token_bytes(piece, bytes)) continue;
    lengths_[i] = static_cast<std::uint32_t>(bytes.size());
    if (bytes.size() == 1) bytes_[static_cast<unsigned char>(bytes.front())] = static_cast<TokenId>(i);
    if (whole_words_ && bytes.size() <= kMostTokenBytes) words_.insert(0, bytes, static_cast<TokenId>(i));
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    if (bytes_[byte] >= 0) continue;
    if (in_utf8(byte)) {
      throw std::invalid_argument("the vocabulary has no token for the byte " + std::to_string(byte) +
                                  ", so it is not one of byte-level BPE");
    }
    bytes_[byte] = bytes_[' '];
  }
  for (std::size_t rank = 0; rank < file.merges.size(); ++rank) {
    const Merge& merge = file.merges[rank];
    const std::uint64_t pair = pair_of(merge.left, merge.right);
    std::size_t i = slot(pair);
    while (table_[i].rank != kNone && table_[i].pair != pair) i = (i + 1) & (table_.size() - 1);
    if (table_[i].rank != kNone) throw std::invalid_argument("merge " + std::to_string(rank) + " is there twice");
    table_[i] = {pair, static_cast<std::uint32_t>(rank), merge.merged};
  }
}

TokenId Bpe::whole_word(std::string_view word) const { return whole_words_ ? words_.find(0, word) : ByteTrie::kNone; }

std::size_t Bpe::segment_short(std::string_view word, TokenId* ids) const {
  if (const TokenId whole = whole_word(word); whole != ByteTrie::kNone) {
    ids[0] = whole;
    return 1;
  }
  std::size_t count = word.size();
  for (std::size_t i = 0; i < count; ++i) ids[i] = bytes_[static_cast<unsigned char>(word[i])];
  std::uint32_t ranks[kShort];  // of each token with the next, kNone for the last
  TokenId merged[kShort];
  const auto look_up = [&](std::size_t i) {
    if (i + 1 == count) {
      ranks[i] = kNone;
      return;
    }
    const Entry& entry = merge_of(ids[i], ids[i + 1]);
    ranks[i] = entry.rank;
    merged[i] = entry.merged;
  };
  for (std::size_t i = 0; i < count; ++i) look_up(i);
  while (count > 1) {
    const auto least = static_cast<std::size_t>(std::min_element(ranks, ranks + count - 1) - ranks);
    if (ranks[least] == kNone) break;
    ids[least] = merged[least];
    --count;
    const std::size_t moved = count - least - 1;
    std::memmove(ids + least + 1, ids + least + 2, moved * sizeof *ids);
    std::memmove(ranks + least + 1, ranks + least + 2, moved * sizeof *ranks);
    std::memmove(merged + least + 1, merged + least + 2, moved * sizeof *merged);
    look_up(least);
    if (least > 0) look_up(least - 1);
  }
  return count;
}

void Bpe::segment(std::string_view word, BpeBuffers& buffers, std::vector<TokenId>& ids) const {
  if (word.size() <= kShort) {
    TokenId found[kShort];
    const std::size_t count = segment_short(word, found);
    ids.insert(ids.end(), found, found + count);
  } else if (const TokenId whole = whole_word(word); whole != ByteTrie::kNone) {
    ids.push_back(whole);
  } else {
    merge_long(word, buffers, ids);
  }
}

void Bpe::merge_long(std::string_view word, BpeBuffers& buffers, std::vector<TokenId>& ids) const {
  if (word.size() >= kNobody) throw std::invalid_argument("a word has 4 GiB or more");
  auto& symbols = buffers.symbols;
  auto& queue = buffers.queue;
  symbols.resize(word.size());
  queue.clear();
  const auto count = static_cast<std::uint32_t>(word.size());
  for (std::uint32_t i = 0; i < count; ++i) {
    symbols[i] = {bytes_[static_cast<unsigned char>(word[i])], i - 1, i + 1 == count ? kNobody : i + 1};
  }
  const auto waiting = [&](std::uint32_t at) -> std::uint64_t {
    const Entry& entry = merge_of(symbols[at].id, symbols[symbols[at].next].id);
    return static_cast<std::uint64_t>(entry.rank) << 32 | at;
  };
  const auto exists = [](std::uint64_t item) { return item >> 32 != kNone; };
  for (std::uint32_t i = 0; i + 1 < count; ++i) {
    if (const std::uint64_t item = waiting(i); exists(item)) queue.push_back(item);
  }
  std::make_heap(queue.begin(), queue.end(), std::greater<>());
  const auto push = [&](std::uint32_t at) {
    const std::uint64_t item = waiting(at);
    if (!exists(item)) return;
    queue.push_back(item);
    std::push_heap(queue.begin(), queue.end(), std::greater<>());
  };
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), std::greater<>());
    const std::uint64_t item = queue.back();
    queue.pop_back();
    const auto at = static_cast<std::uint32_t>(item);
    BpeBuffers::Symbol& left = symbols[at];
    // A pair that one of its tokens has left since: no two pairs have one rank.
    if (left.id < 0 || left.next == kNobody) continue;
    const Entry& entry = merge_of(left.id, symbols[left.next].id);
    if (entry.rank != item >> 32) continue;
    BpeBuffers::Symbol& right = symbols[left.next];
    left.id = entry.merged;
    left.next = right.next;
    right.id = -1;
    if (left.next != kNobody) {
      symbols[left.next].previous = at;
      push(at);
    }
    if (at != 0) push(left.previous);
  }
  for (std::uint32_t at = 0; at != kNobody; at = symbols[at].next) ids.push_back(symbols[at].id);
  if (symbols.capacity() > kMostKept) {
    symbols = {};
    queue = {};
  }
}

}  // namespace bgert
