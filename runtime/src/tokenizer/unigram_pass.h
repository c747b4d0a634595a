// One pass over a text: normalisation, words and their pieces.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "added_tokens.h"
#include "precompiled_charsmap.h"
#include "text_model.h"
#include "unigram.h"
#include "long_word_cache.h"
#include "unigram_lattice.h"
#include "unigram_table.h"

namespace bgert {

/// What a thread keeps between texts.
struct UnigramScratch final : TextModel::Scratch {
  static constexpr std::size_t kRoom = 4096;  // of a run, before it is passed on in parts
  static constexpr std::size_t kSlack = 64;   // more than any kMap entry and any key
  LongWordCache cache;
  UnigramLattice lattice;
  std::vector<TokenId> pieces;
  std::string flagged;                   // what came before the buffer in a run that may hold a token
  char run[3 + kRoom + 2 * kSlack] = {};  // a word mark and the run
};

/// What does not change during a pass.
struct UnigramParts {
  const UnigramTable& table;
  const Unigram& unigram;
  const PrecompiledCharsmap& charsmap;
  const AddedTokens& normalized;  ///< tokens that are matched in normalised text
};

/// Text between tokens that are matched raw. A run is what stands between whitespace after normalisation; a word is
/// what a run has between tokens and word marks.
class UnigramPass {
 public:
  UnigramPass(const UnigramParts& parts, UnigramScratch& scratch, std::vector<TokenId>& ids, std::size_t limit,
              bool split_special_tokens);

  /// Appends ids until the text ends or there are more than `limit`.
  void run(std::string_view text);

  /// The same for a text in normal form; no tokens are looked for if `parts` has none.
  void run_normalized(std::string_view text);

 private:
  bool enough() const { return ids_.size() > limit_; }
  std::size_t filled() const { return static_cast<std::size_t>(to_ - content_); }

  bool ascii_space(const char* p, const char* end) const;
  const char* ascii_word(const char* p, const char* end);
  const char* any_run(const char* p, const char* end);
  const char* cluster(const char* p, const char* end);
  void add(UnigramTable::Entry entry, const char* p, std::size_t length);
  void add_text(std::string_view normalized);
  void pass_on();
  void finish_run();
  void flagged_run();
  void words(std::string_view text);
  void feed(std::string_view text);
  void close_word();
  void look_up(const LongWordKey& key, std::string_view marked);

  const UnigramParts& parts_;
  UnigramScratch& scratch_;
  std::vector<TokenId>& ids_;
  std::size_t limit_;
  bool split_special_tokens_;

  char* const content_;      // of the run, behind the word mark
  char* to_;                 // where it ends
  bool flagged_ = false;     // it may hold a token
  bool marked_ = false;      // it holds a word mark
  bool word_open_ = false;   // the lattice has the beginning of a word
};

}  // namespace bgert
