#include "unigram_lattice.h"

#include <algorithm>

#include "utf8.h"

namespace bgert {

void UnigramLattice::extend(std::size_t size) {
  const bool first = steps_.empty();
  steps_.resize(size + 1);
  scores_.resize(size + 1 - first_score_, kUnreached);
  if (first) scores_[0] = 0;
}

/// Continues all paths that reach the positions from `from` up to `stop`; returns the first position not looked at.
std::size_t UnigramLattice::search(const Unigram& unigram, std::string_view text, std::size_t from, std::size_t stop) {
  const DoubleArray& trie = unigram.trie();
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  double* const scores = scores_.data();
  Step* const steps = steps_.data();
  const std::size_t shift = first_score_;
  const auto reach = [=](std::size_t start, std::size_t length, double score, TokenId id) {
    double& best = scores[start + length - shift];
    if (score > best) {
      best = score;
      steps[start + length] = {id, static_cast<std::uint32_t>(length)};
    }
  };
  while (from < stop) {
    const char* p = begin + from;
    const Decoded first = decode_utf8(p, end);
    const double so_far = scores[from - shift];
    DoubleArray::Node node = unigram.first(first.code_point, {p, first.length});
    p += first.length;
    const TokenId single = node == DoubleArray::kRoot ? -1 : trie.value(node);
    if (single >= 0) {
      reach(from, first.length, so_far + unigram.score(single), single);
    } else {
      reach(from, first.length, so_far + unigram.unk_score(), unigram.unk_id());
    }
    if (node != DoubleArray::kRoot) {
      for (; p < end && trie.step(node, static_cast<unsigned char>(*p)); ++p) {
        const TokenId id = trie.value(node);
        if (id >= 0) reach(from, static_cast<std::size_t>(p + 1 - begin) - from, so_far + unigram.score(id), id);
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
  for (std::size_t at = end; at > 0; at -= steps_[at].length) path_.push_back(static_cast<std::uint32_t>(at));
  std::size_t start = 0;
  for (auto step = path_.rbegin(); step != path_.rend(); ++step) {
    const TokenId id = steps_[*step].id;
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
  steps_.clear();
  scores_.clear();
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
  steps_.erase(steps_.begin(), steps_.begin() + static_cast<std::ptrdiff_t>(certain));
  scores_.erase(scores_.begin(), scores_.begin() + static_cast<std::ptrdiff_t>(done_ - first_score_));
  done_ -= certain;
  first_score_ = done_;
  // Paths that do not meet make the window grow in proportion, so that the work stays linear.
  window_ = std::max(kWindow, 2 * done_);
}

/// The last position that all paths which may still win go through.
std::size_t UnigramLattice::common_ancestor(std::size_t longest) {
  const std::size_t last = std::min(done_ + longest, steps_.size() - 1);
  live_.assign(last + 1, false);
  std::size_t count = 0;
  for (std::size_t at = done_; at <= last; ++at) {
    if (scores_[at - first_score_] == kUnreached) continue;
    live_[at] = true;
    ++count;
  }
  for (std::size_t at = last;; --at) {
    if (!live_[at]) continue;
    if (count == 1 && at <= done_) return at;
    if (at == 0) return 0;
    const std::size_t start = at - steps_[at].length;
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
  if (steps_.capacity() > kMostKept) {
    std::vector<Step>().swap(steps_);
    std::vector<double>().swap(scores_);
    std::vector<std::uint32_t>().swap(path_);
    std::string().swap(text_);
  }
  steps_.clear();
  scores_.clear();
  text_.clear();
  unknown_.clear();
  unknown_nodes_ = done_ = first_score_ = 0;
  window_ = kWindow;
}

}  // namespace bgert
