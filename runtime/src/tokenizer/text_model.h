// What every tokenizer model (WordPiece, Unigram, byte-level BPE) offers to the batch encoder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bgert {

using TokenId = std::int32_t;

constexpr std::size_t kMostTokens = std::size_t{1} << 21;  // of a vocabulary; the largest in use has 0.9 million
inline std::string too_many_tokens() {
  return "the vocabulary has more than " + std::to_string(kMostTokens) + " tokens";
}
// Of a token that is looked for: every place of a text may cost as many steps as the longest token has bytes.
constexpr std::size_t kMostTokenBytes = 1000;

/// A token that is matched in the text before the model runs, as in HF's `added_tokens`.
struct AddedToken {
  std::string content;
  TokenId id = 0;
  bool special = false;
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalized = false;  ///< matched after normalisation instead of on the raw text
};

struct EncodeOptions {
  /// The caller needs to know the ids only up to this many, and whether there are more: a model may stop
  /// as soon as it has appended more than `limit` ids.
  std::size_t limit = static_cast<std::size_t>(-1);
  /// Treat special tokens that occur in the text as plain text (HF's `split_special_tokens`).
  bool split_special_tokens = false;
};

/// A token and the range of the text's characters (Unicode code points) that it stands for.
struct TokenSpan {
  TokenId id;
  std::uint32_t start, stop;
};

struct SpanOptions {
  bool split_special_tokens = false;
  /// HF loses count where a charsmap deletes the first characters of a text: its offsets after that are too small.
  /// True: the same offsets; false: those of the characters that the tokens really come from, whitespace left out where
  /// tokens hold it (see bpe_model.h).
  bool as_hf = true;
};

class Vocabulary;

/// Text to ids. Immutable after construction and shared by threads; what changes lives in a Scratch.
class TextModel {
 public:
  /// Buffers and caches of one thread. Never shared by two threads at a time.
  struct Scratch {
    virtual ~Scratch() = default;
  };

  virtual ~TextModel() = default;
  virtual std::unique_ptr<Scratch> make_scratch() const = 0;

  /// Appends the ids of `text`, which is valid UTF-8, to `ids`. No template tokens are added.
  virtual void encode(std::string_view text, const EncodeOptions& options, Scratch& scratch,
                      std::vector<TokenId>& ids) const = 0;

  /// Appends the tokens of `text`, which has less than 4 GiB, with their offsets. The ids are those of `encode`; this
  /// is the slow way to them, step by step as HF describes them.
  virtual void encode_spans(std::string_view text, const SpanOptions& options, std::vector<TokenSpan>& spans) const = 0;

  virtual std::size_t vocab_size() const = 0;

  /// Ids of the vocabulary and of added tokens are below this.
  virtual std::size_t id_count() const = 0;
  virtual const Vocabulary& vocabulary() const = 0;

  /// The text of tokens, see decoder.h.
  virtual std::string join(std::span<const std::string_view> tokens) const = 0;
};

}  // namespace bgert
