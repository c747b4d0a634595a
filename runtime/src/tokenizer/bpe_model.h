// Byte-level BPE tokenizers, from GPT-2's on: added tokens, NFC, words by a regular expression and merges of their bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "added_tokens.h"
#include "aligned_text.h"
#include "bpe.h"
#include "split_pattern.h"
#include "text_model.h"
#include "vocabulary.h"

namespace bgert {

struct BpeOptions {
  SplitPattern pattern = SplitPattern::kGpt2;
  bool nfc = false;
  bool ignore_merges = false;     ///< a word that is a token needs no merges
  bool add_prefix_space = false;  ///< text that begins without a space gets one
  bool trim_offsets = false;      ///< the offsets of a token leave out the spaces at its ends,
  bool keep_first_space = false;  ///< but for a single one at the beginning of the text
};

class BpeModel final : public TextModel {
 public:
  /// `file`: see bpe_file.h. Throws std::invalid_argument if it is damaged.
  BpeModel(std::string_view file, const BpeOptions& options, const std::vector<AddedToken>& added_tokens);

  std::unique_ptr<Scratch> make_scratch() const override;
  void encode(std::string_view text, const EncodeOptions& options, Scratch& scratch,
              std::vector<TokenId>& ids) const override;

  /// With `as_hf` false, tokens have no whitespace at their ends; one that is whitespace alone has no characters.
  void encode_spans(std::string_view text, const SpanOptions& options, std::vector<TokenSpan>& spans) const override;

  std::size_t vocab_size() const override { return vocab_size_; }
  std::size_t id_count() const override { return id_count_; }
  const Vocabulary& vocabulary() const override { return vocabulary_; }
  std::string join(std::span<const std::string_view> tokens) const override;

 private:
  using Chars = std::span<const AlignedChar>;

  BpeModel(const BpeFile& file, const BpeOptions& options, const std::vector<AddedToken>& added_tokens,
           AddedTokenSets tokens);
  std::string normal_form(std::string_view text) const;
  std::vector<std::string> patterns(const std::vector<AddedToken>& tokens, bool normalized) const;
  const char* end_of_word(const char* p, const char* end) const;
  void add_words(Chars text, const SpanOptions& options, std::vector<TokenSpan>& spans) const;
  void add_span(TokenId id, Chars chars, bool added, const SpanOptions& options, std::vector<TokenSpan>& spans) const;

  BpeOptions options_;
  std::size_t vocab_size_, id_count_;
  Vocabulary vocabulary_;
  Bpe bpe_;
  AddedTokens raw_, normalized_;
  const std::uint8_t* classes_;
};

}  // namespace bgert
