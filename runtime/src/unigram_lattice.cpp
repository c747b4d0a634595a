#include "unigram_lattice.h"

#include <algorithm>

#include "utf8.h"

namespace bgert {

void UnigramLattice::extend(std::size_t size) {
  const std::size_t known = nodes_.size();
  nodes_.resize(size + 1);
  if (known == 0) nodes_[0].score = 0;
}

/// Continues all paths that reach the positions from `from` up to `stop`; returns the first position not looked at.
std::size_t UnigramLattice::search(const Unigram& unigram, std::string_view text, std::size_t from, std::size_t stop) {
  const DoubleArray& trie = unigram.trie();
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  Node* const nodes = nodes_.data();
  const auto reach = [nodes](std::size_t start, std::size_t position, double score, TokenId id) {
    Node& node = nodes[position];
    if (score > node.score) node = {score, static_cast<std::uint32_t>(start), id};
  };
  while (from < stop) {
    const char* p = begin + from;
    const Decoded first = decode_utf8(p, end);
    const double so_far = nodes[from].score;
    DoubleArray::Node node = unigram.first(first.code_point, {p, first.length});
    p += first.length;
    const TokenId single = node == DoubleArray::kRoot ? -1 : trie.value(node);
    if (single >= 0) {
      reach(from, from + first.length, so_far + unigram.score(single), single);
    } else {
      reach(from, from + first.length, so_far + unigram.unk_score(), unigram.unk_id());
    }
    if (node != DoubleArray::kRoot) {
      for (; p < end && trie.step(node, static_cast<unsigned char>(*p)); ++p) {
        const TokenId id = trie.value(node);
        if (id >= 0) reach(from, static_cast<std::size_t>(p + 1 - begin), so_far + unigram.score(id), id);
      }
    }
    from += first.length;
  }
  return from;
}

/// Ends a run of unknown characters. HF looks up the whole run, which may be a piece although its best path is not.
void UnigramLattice::end_unknown(const Unigram& unigram, std::vector<TokenId>& ids) {
  if (unknown_nodes_ == 0) return;
  TokenId id = unigram.unk_id();
  if (unknown_nodes_ > 1 && unknown_.size() <= unigram.longest_piece()) {
    const TokenId piece = unigram.find(unknown_);
    if (piece >= 0) id = piece;
  }
  ids.push_back(id);
  unknown_.clear();
  unknown_nodes_ = 0;
}

/// Appends the ids of the best path to a position.
void UnigramLattice::emit(const Unigram& unigram, std::string_view text, std::size_t end, std::vector<TokenId>& ids) {
  path_.clear();
  for (std::size_t at = end; at > 0; at = nodes_[at].start) path_.push_back(static_cast<std::uint32_t>(at));
  std::size_t start = 0;
  for (auto step = path_.rbegin(); step != path_.rend(); ++step) {
    const TokenId id = nodes_[*step].id;
    if (id == unigram.unk_id()) {
      if (unknown_.size() <= unigram.longest_piece()) unknown_.append(text.substr(start, *step - start));
      ++unknown_nodes_;
    } else {
      end_unknown(unigram, ids);
      ids.push_back(id);
    }
    start = *step;
  }
}

void UnigramLattice::segment(const Unigram& unigram, std::string_view word, std::vector<TokenId>& ids) {
  extend(word.size());
  search(unigram, word, 0, word.size());
  emit(unigram, word, word.size(), ids);
  end_unknown(unigram, ids);
  nodes_.clear();
}

void UnigramLattice::feed(const Unigram& unigram, std::string_view part, std::vector<TokenId>& ids) {
  text_.append(part);
  const std::size_t longest = std::max<std::size_t>(unigram.longest_piece(), 4);
  if (text_.size() < window_ + longest) return;
  extend(text_.size());
  // No piece that starts before `stop` reaches past the text that is there.
  done_ = search(unigram, text_, done_, text_.size() - longest);
  const std::size_t certain = common_ancestor(longest);
  emit(unigram, text_, certain, ids);
  text_.erase(0, certain);
  nodes_.erase(nodes_.begin(), nodes_.begin() + static_cast<std::ptrdiff_t>(certain));
  for (Node& node : nodes_) node.start -= static_cast<std::uint32_t>(certain);
  done_ -= certain;
  // Paths that do not meet make the window grow in proportion, so that the work stays linear.
  window_ = std::max(kWindow, 2 * done_);
}

/// The last position that all paths which may still win go through.
std::size_t UnigramLattice::common_ancestor(std::size_t longest) {
  const std::size_t last = std::min(done_ + longest, nodes_.size() - 1);
  live_.assign(last + 1, false);
  std::size_t count = 0;
  for (std::size_t at = done_; at <= last; ++at) {
    if (nodes_[at].score == -std::numeric_limits<double>::infinity()) continue;
    live_[at] = true;
    ++count;
  }
  for (std::size_t at = last;; --at) {
    if (!live_[at]) continue;
    if (count == 1 && at <= done_) return at;
    if (at == 0) return 0;
    const std::size_t start = nodes_[at].start;
    if (live_[start]) {
      --count;
    } else {
      live_[start] = true;
    }
  }
}

void UnigramLattice::finish(const Unigram& unigram, std::vector<TokenId>& ids) {
  extend(text_.size());
  search(unigram, text_, done_, text_.size());
  emit(unigram, text_, text_.size(), ids);
  end_unknown(unigram, ids);
  reset();
}

void UnigramLattice::reset() {
  constexpr std::size_t kMostKept = 1 << 16;  // a word whose paths did not meet may have left large buffers
  if (nodes_.capacity() > kMostKept) {
    std::vector<Node>().swap(nodes_);
    std::vector<std::uint32_t>().swap(path_);
    std::string().swap(text_);
  }
  nodes_.clear();
  text_.clear();
  unknown_.clear();
  unknown_nodes_ = done_ = 0;
  window_ = kWindow;
}

}  // namespace bgert
