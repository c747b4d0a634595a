#include "bpe.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <stdexcept>
#include <string>
#include <unordered_set>

#include "byte_level.h"

namespace bgert {
namespace {

constexpr std::size_t kMostKept = std::size_t{1} << 16;  // symbols of a buffer that waits for the next word
constexpr unsigned kPlaceBits = 6;  // of a place in a short word
static_assert(std::size_t{1} << kPlaceBits == Bpe::kShort);
constexpr std::size_t kMostMerges = std::size_t{1} << 22;
constexpr std::uint32_t kNobody = static_cast<std::uint32_t>(-1);

/// Bytes that no UTF-8 has need no token.
bool in_utf8(unsigned byte) { return byte != 0xC0 && byte != 0xC1 && byte < 0xF5; }

}  // namespace

Bpe::Bpe(const BpeFile& file, bool whole_words)
    : lengths_(file.pieces.size()),
      table_(std::bit_ceil(2 * file.merges.size() + 2)),
      shift_(64 - static_cast<unsigned>(std::countr_zero(table_.size()))),
      filter_((table_.size() << kFilterBits) / 64 + 1),
      byte_pairs_(std::size_t{1} << 16),
      whole_words_(whole_words) {
  if (file.merges.size() > kMostMerges) throw std::invalid_argument("the vocabulary has too many merges");
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
    const std::uint64_t hash = hash_of(pair);
    auto i = static_cast<std::size_t>(hash >> shift_);
    while (table_[i].rank != kNone && table_[i].pair != pair) i = (i + 1) & (table_.size() - 1);
    if (table_[i].rank != kNone) throw std::invalid_argument("merge " + std::to_string(rank) + " is there twice");
    table_[i] = {pair, static_cast<std::uint32_t>(rank), merge.merged};
    const auto bit = static_cast<std::size_t>(hash >> (shift_ - kFilterBits));
    filter_[bit / 64] |= std::uint64_t{1} << bit % 64;
  }
  for (std::size_t pair = 0; pair < byte_pairs_.size(); ++pair) {
    const Entry& entry = merge_of(bytes_[pair >> 8], bytes_[pair & 0xFF]);
    byte_pairs_[pair] = {entry.rank, entry.merged};
  }
}

TokenId Bpe::whole_word(std::string_view word) const { return whole_words_ ? words_.find(0, word) : ByteTrie::kNone; }

std::size_t Bpe::segment_short(std::string_view word, TokenId* ids) const {
  if (const TokenId whole = whole_word(word); whole != ByteTrie::kNone) {
    ids[0] = whole;
    return 1;
  }
  const std::size_t size = word.size();
  std::uint32_t keys[kShort];  // of each token with the next: rank << kPlaceBits | place, kNone if it has none
  TokenId merged[kShort];
  std::uint8_t next[kShort], previous[kShort];
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(word[i]); };
  const auto key = [](std::uint32_t rank, std::size_t i) {
    return rank == kNone ? kNone : rank << kPlaceBits | static_cast<std::uint32_t>(i);
  };
  const auto look_up = [&](std::size_t i, std::size_t j) {
    const Entry& entry = merge_of(ids[i], ids[j]);
    keys[i] = key(entry.rank, i);
    merged[i] = entry.merged;
  };
  for (std::size_t i = 0; i < size; ++i) {
    ids[i] = bytes_[byte(i)];
    next[i] = static_cast<std::uint8_t>(i + 1);
    previous[i] = static_cast<std::uint8_t>(i - 1);
    if (i + 1 == size) break;
    const BytePair& pair = byte_pairs_[static_cast<std::size_t>(byte(i) << 8 | byte(i + 1))];
    keys[i] = key(pair.rank, i);
    merged[i] = pair.merged;
  }
  const std::size_t padded = (size + 2) / 4 * 4;  // keys, of which there is one less than bytes, by four
  std::fill(keys + size - 1, keys + padded, kNone);
  for (;;) {
    std::uint32_t least[4] = {kNone, kNone, kNone, kNone};
    for (std::size_t i = 0; i < padded; i += 4) {
      for (std::size_t lane = 0; lane < 4; ++lane) least[lane] = std::min(least[lane], keys[i + lane]);
    }
    const std::uint32_t first = std::min(std::min(least[0], least[1]), std::min(least[2], least[3]));
    if (first == kNone) break;
    const std::size_t i = first & (kShort - 1);
    const std::size_t gone = next[i];
    const std::size_t after = next[gone];
    ids[i] = merged[i];
    ids[gone] = -1;
    keys[gone < size - 1 ? gone : i] = kNone;
    next[i] = static_cast<std::uint8_t>(after);
    if (after < size) {
      previous[after] = static_cast<std::uint8_t>(i);
      look_up(i, after);
    } else {
      keys[i] = kNone;
    }
    if (i > 0) look_up(previous[i], i);
  }
  return static_cast<std::size_t>(std::remove(ids, ids + size, -1) - ids);
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
