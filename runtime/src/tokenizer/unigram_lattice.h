// Finds the best segmentation of a word into pieces, of long words in a window that moves along.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "text_model.h"
#include "unigram.h"

namespace bgert {

struct SizedPiece {
  TokenId id;
  std::size_t length;  ///< bytes of the word
};

class UnigramLattice {
 public:
  /// Appends the ids of a word at once.
  void segment(const Unigram& unigram, std::string_view word, std::vector<TokenId>& ids);

  /// Appends the pieces of a word with their lengths.
  void segment(const Unigram& unigram, std::string_view word, std::vector<SizedPiece>& pieces);

  /// Takes more of a word whose end is not known yet, and appends the ids that are certain.
  void feed(const Unigram& unigram, std::string_view part, std::vector<TokenId>& ids);

  /// Ends the word that was fed.
  void finish(const Unigram& unigram, std::vector<TokenId>& ids);

  /// Drops what was fed.
  void reset();

 private:
  /// The last piece on the best way to a byte position.
  struct Step {
    TokenId id;
    std::uint32_t length;
  };
  static constexpr double kUnreached = -std::numeric_limits<double>::infinity();

  void extend(std::size_t size);
  std::size_t search(const Unigram& unigram, std::string_view text, std::size_t from, std::size_t stop);
  std::size_t common_ancestor(std::size_t longest_piece);
  void emit(const Unigram& unigram, std::string_view text, std::size_t end, std::vector<TokenId>& ids);
  void end_unknown(const Unigram& unigram, std::vector<TokenId>& ids);

  std::vector<Step> steps_;
  std::vector<double> scores_;  // of the best ways to the positions from first_score_ on
  std::size_t first_score_ = 0;
  std::vector<std::uint32_t> path_;
  std::vector<bool> live_;
  std::string unknown_;            // the run of unknown characters that may go on
  std::size_t unknown_nodes_ = 0;  // how many they are

  std::string text_;  // what was fed and is not certain
  std::size_t done_ = 0, window_ = kWindow;
  static constexpr std::size_t kWindow = 4096;
};

}  // namespace bgert
