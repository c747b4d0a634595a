// XLM-RoBERTa's tokenizer: added tokens, charsmap, split at whitespace and Unigram in one pass over the text.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "added_tokens.h"
#include "aligned_text.h"
#include "precompiled_charsmap.h"
#include "text_model.h"
#include "unigram.h"
#include "unigram_file.h"
#include "unigram_lattice.h"
#include "unigram_pass.h"
#include "unigram_table.h"
#include "vocabulary.h"

namespace bgert {

class UnigramModel final : public TextModel {
 public:
  /// `file`: see unigram_file.h. Throws std::invalid_argument if it is damaged.
  UnigramModel(std::string_view file, const std::vector<AddedToken>& added_tokens);

  UnigramModel(const UnigramModel&) = delete;
  UnigramModel& operator=(const UnigramModel&) = delete;

  std::unique_ptr<Scratch> make_scratch() const override;
  void encode(std::string_view text, const EncodeOptions& options, Scratch& scratch,
              std::vector<TokenId>& ids) const override;
  void encode_spans(std::string_view text, const SpanOptions& options, std::vector<TokenSpan>& spans) const override;
  std::size_t vocab_size() const override { return unigram_.size(); }
  std::size_t id_count() const override { return id_count_; }
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::string join(std::span<const std::string_view> tokens) const override;

 private:
  UnigramModel(const UnigramFile& file, const std::vector<AddedToken>& added_tokens);
  UnigramModel(const UnigramFile& file, const std::vector<AddedToken>& added_tokens, AddedTokenSets tokens);
  void add_runs(std::span<const AlignedChar> text, UnigramLattice& lattice, std::vector<TokenSpan>& spans) const;
  void add_word(std::span<const AlignedChar> word, UnigramLattice& lattice, std::vector<TokenSpan>& spans) const;

  std::size_t id_count_;
  Vocabulary vocabulary_;
  PrecompiledCharsmap charsmap_;
  Unigram unigram_;
  std::vector<std::string> patterns_;  // of the tokens that are matched in normalised text
  AddedTokens raw_, normalized_, none_;
  UnigramTable table_;
  UnigramParts parts_, parts_without_tokens_;
  bool spaced_ = false;  // a pattern has whitespace in it, so runs cannot be looked at one by one
};

}  // namespace bgert
