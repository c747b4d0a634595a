// BERT's tokenizer: added tokens, normaliser, pre-tokeniser and WordPiece in one pass over the text.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "added_tokens.h"
#include "aligned_text.h"
#include "bert_normalizer.h"
#include "code_point_table.h"
#include "text_model.h"
#include "vocabulary.h"
#include "wordpiece.h"

namespace bgert {

class WordPieceModel final : public TextModel {
 public:
  WordPieceModel(const std::vector<std::string>& vocab, const WordPieceOptions& options,
                 const BertNormalizer& normalizer, const std::vector<AddedToken>& added_tokens);

  std::unique_ptr<Scratch> make_scratch() const override;
  void encode(std::string_view text, const EncodeOptions& options, Scratch& scratch,
              std::vector<TokenId>& ids) const override;
  void encode_spans(std::string_view text, const SpanOptions& options, std::vector<TokenSpan>& spans) const override;
  std::size_t vocab_size() const override { return wordpiece_.vocab_size(); }
  std::size_t id_count() const override { return id_count_; }
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::string join(std::span<const std::string_view> tokens) const override;

 private:
  void add_words(std::span<const AlignedChar> text, std::vector<TokenSpan>& spans) const;
  void add_word(std::span<const AlignedChar> word, std::vector<TokenSpan>& spans) const;

  std::string prefix_;
  Vocabulary vocabulary_;
  BertNormalizer normalizer_;
  WordPiece wordpiece_;
  AddedTokens raw_, normalized_;
  std::size_t id_count_;
  CodePointTable table_;
  std::optional<CodePointTable> split_table_;  // for text in normal form, where added tokens are matched there
};

}  // namespace bgert
