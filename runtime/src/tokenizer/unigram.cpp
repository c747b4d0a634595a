#include "unigram.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "byte_order.h"
#include "utf8.h"

namespace bgert {
namespace {

constexpr double kUnkPenalty = 10;
constexpr double kMostScore = 1e290;          // so that no sum over a text is infinite: the search needs finite ones

/// A piece with its first bytes as a number, so that sorting seldom looks at the piece.
struct Key {
  std::uint64_t prefix;
  std::string_view piece;
  TokenId id;

  Key(std::string_view bytes, TokenId index) : prefix(0), piece(bytes), id(index) {
    for (std::size_t i = 0; i < 8; ++i) {
      prefix = prefix << 8 | (i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0U);
    }
  }
  friend bool operator<(const Key& a, const Key& b) {
    if (a.prefix != b.prefix) return a.prefix < b.prefix;
    const int order = a.piece.compare(b.piece);
    return order != 0 ? order < 0 : a.id < b.id;
  }
};

}  // namespace

Unigram::Unigram(const std::vector<std::string_view>& pieces, std::vector<double> scores, TokenId unk_id)
    : scores_(std::move(scores)), unk_id_(unk_id) {
  if (pieces.size() != scores_.size()) throw std::invalid_argument("there are not as many scores as pieces");
  if (unk_id < 0 || static_cast<std::size_t>(unk_id) >= pieces.size()) {
    throw std::invalid_argument("unk_id " + std::to_string(unk_id) + " is no piece of the vocabulary");
  }
  std::vector<Key> keys;
  keys.reserve(pieces.size());
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    const std::string_view piece = pieces[id];
    const auto fail = [id](const char* what) {
      throw std::invalid_argument("piece " + std::to_string(id) + " " + what);
    };
    if (!(std::abs(scores_[id]) <= kMostScore)) fail("has a score that is out of range or no number");
    if (piece.size() > kMostTokenBytes) fail("is too long");
    if (!is_utf8(piece)) fail("is not UTF-8");
    longest_piece_ = std::max(longest_piece_, piece.size());
    if (!piece.empty()) keys.emplace_back(piece, static_cast<TokenId>(id));
  }
  unk_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnkPenalty;
  std::sort(keys.begin(), keys.end());
  std::vector<std::pair<std::string_view, std::int32_t>> unique;
  unique.reserve(keys.size());
  for (const Key& key : keys) {
    if (!unique.empty() && unique.back().first == key.piece) unique.pop_back();
    unique.emplace_back(key.piece, key.id);
  }
  trie_ = DoubleArray(unique);
  first_.resize(kFirstSize);
  for (char32_t cp = 0; cp < kFirstSize; ++cp) {
    char bytes[4];
    first_[cp] = walk({bytes, encode_utf8(cp, bytes)});
  }
}

DoubleArray::Node Unigram::walk(std::string_view bytes) const {
  DoubleArray::Node node = DoubleArray::kRoot;
  for (const char byte : bytes) {
    if (!trie_.step(node, static_cast<unsigned char>(byte))) return DoubleArray::kRoot;
  }
  return node;
}

}  // namespace bgert
