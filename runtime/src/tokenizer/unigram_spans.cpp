// Unigram tokens with their offsets: charsmap, split at whitespace and model one after the other.
#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "added_tokens.h"
#include "aligned_text.h"
#include "decoder.h"
#include "grapheme.h"
#include "span_walk.h"
#include "unicode.h"
#include "unigram_lattice.h"
#include "unigram_model.h"
#include "utf8.h"

namespace bgert {
namespace {

/// Collects what a charsmap does to a text in the terms of `transform`.
class CharsmapChanges {
 public:
  CharsmapChanges(const PrecompiledCharsmap& charsmap, std::string_view text) {
    changes_.reserve(text.size());
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
      const std::string_view cluster(p, grapheme::cluster_size(p, end));
      p += cluster.size();
      if (cluster.size() < kLongCluster) {
        if (const auto whole = charsmap.transform(cluster)) {
          replace(cluster, *whole);
          continue;
        }
      }
      for (const char *c = cluster.data(), *stop = c + cluster.size(); c < stop;) {
        const std::string_view part(c, decode_utf8(c, stop).length);
        replace(part, charsmap.transform(part).value_or(part));
        c += part.size();
      }
    }
  }

  std::span<const Change> changes() const { return changes_; }
  std::size_t removed() const { return removed_; }  ///< characters before the first that is left

 private:
  void replace(std::string_view from, std::string_view to) {
    const std::size_t before = changes_.size();
    for (const char *p = to.data(), *end = p + to.size(); p < end;) {
      const Decoded next = decode_utf8(p, end);
      changes_.push_back({next.code_point, 0});
      p += next.length;
    }
    const std::size_t added = changes_.size() - before;
    const std::size_t gone = count_characters(from);
    for (std::size_t i = gone; i < added; ++i) changes_[before + i].change = 1;
    if (added >= gone) return;
    if (changes_.empty()) {
      removed_ += gone;
    } else {
      changes_.back().change -= static_cast<std::ptrdiff_t>(gone - added);
    }
  }

  std::vector<Change> changes_;
  std::size_t removed_ = 0;
};

}  // namespace

void UnigramLattice::segment(const Unigram& unigram, std::string_view word, std::vector<SizedPiece>& pieces) {
  extend(word.size());
  search(unigram, word, 0, word.size());
  path_.clear();
  for (std::size_t at = word.size(); at > 0; at -= steps_[at].length) path_.push_back(static_cast<std::uint32_t>(at));
  std::size_t begin = 0;  // of the piece
  for (std::size_t i = path_.size(); i > 0; --i) {
    const TokenId id = steps_[path_[i - 1]].id;
    // A run of unknown characters is one piece, looked up as such.
    if (id == unigram.unk_id() && i > 1 && steps_[path_[i - 2]].id == id) continue;
    const std::size_t end = path_[i - 1];
    const TokenId whole = id == unigram.unk_id() ? unigram.find(word.substr(begin, end - begin)) : id;
    pieces.push_back({whole >= 0 ? whole : id, end - begin});
    begin = end;
  }
  reset();
}

void UnigramModel::encode_spans(std::string_view text, const SpanOptions& options,
                                std::vector<TokenSpan>& spans) const {
  UnigramLattice lattice;
  walk_spans(
      text, raw_, normalized_, options.split_special_tokens, append_to(spans),
      [&](AlignedText& part) {
        if (charsmap_.empty()) return;
        const CharsmapChanges changes(charsmap_, to_utf8(part));
        transform(part, changes.changes(), options.as_hf ? 0 : changes.removed());
      },
      [&](std::span<const AlignedChar> part) { add_runs(part, lattice, spans); });
}

/// Splits normalised text at whitespace and before each word mark; a run that begins without one gets one.
void UnigramModel::add_runs(std::span<const AlignedChar> text, UnigramLattice& lattice,
                            std::vector<TokenSpan>& spans) const {
  AlignedText word;
  const auto end_word = [&] {
    if (!word.empty()) add_word(word, lattice, spans);
    word.clear();
  };
  for (const AlignedChar& c : text) {
    if ((unicode::flags(c.code_point) & unicode::kWhitespace) != 0) {
      end_word();
      continue;
    }
    if (c.code_point == kWordMarkCodePoint) {
      end_word();
    } else if (word.empty()) {
      word.push_back({kWordMarkCodePoint, c.start, c.stop});
    }
    word.push_back(c);
  }
  end_word();
}

void UnigramModel::add_word(std::span<const AlignedChar> word, UnigramLattice& lattice,
                            std::vector<TokenSpan>& spans) const {
  const std::string bytes = to_utf8(word);
  std::vector<SizedPiece> pieces;
  lattice.segment(unigram_, bytes, pieces);
  std::string_view left = bytes;
  std::span<const AlignedChar> rest = word;
  for (const SizedPiece& piece : pieces) {
    const auto chars = rest.first(count_characters(left.substr(0, piece.length)));
    left.remove_prefix(piece.length);
    rest = rest.subspan(chars.size());
    spans.push_back({piece.id, chars.front().start, chars.back().stop});
  }
}

std::string UnigramModel::join(std::span<const std::string_view> tokens) const { return join_metaspace(tokens); }

}  // namespace bgert
