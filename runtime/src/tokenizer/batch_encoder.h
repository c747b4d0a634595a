// Texts or pairs of texts to packed ids: template, truncation and threads around a TextModel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "scratch_pool.h"
#include "text_model.h"
#include "truncation.h"

namespace bgert {

/// Tokens of the template that stand together, and their token type.
struct TemplatePart {
  std::vector<TokenId> ids;
  std::int32_t type = 0;
};

/// Where the texts stand between the special tokens.
struct Template {
  TemplatePart prefix, middle, suffix;  ///< `middle` is for pairs alone
  std::int32_t first_type = 0, second_type = 0;

  std::size_t size() const { return prefix.ids.size() + middle.ids.size() + suffix.ids.size(); }
};

constexpr std::size_t kUnlimited = static_cast<std::size_t>(-1);

struct BatchOptions {
  std::size_t max_length = kUnlimited;  ///< special tokens counted
  Truncation truncation = Truncation::kLongestFirst;
  std::optional<std::size_t> most_first;  ///< kFlagEmbedding: tokens a first text may have; 3/4 of max_length if unset
  TruncationSide side = TruncationSide::kRight;
  bool add_special_tokens = true;
  bool split_special_tokens = false;
  std::size_t threads = 1;
};

/// An array whose elements are not set on construction, so that memory is touched once.
template <typename T>
struct Array {
  std::unique_ptr<T[]> data;
  std::size_t size = 0;
  Array() = default;
  explicit Array(std::size_t n) : data(new T[n]), size(n) {}
  std::span<const T> span() const { return {data.get(), size}; }
};

struct EncodedBatch {
  Array<TokenId> ids;              ///< all rows one after the other
  Array<std::int32_t> cu_seqlens;  ///< row i is ids[cu_seqlens[i]] to ids[cu_seqlens[i + 1]]
  Array<std::int32_t> type_ids;
  Array<bool> truncated;
};

/// The options do not go with the tokenizer.
struct BatchOptionError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

/// An input cannot be encoded with these options.
struct BatchInputError : std::runtime_error {
  BatchInputError(std::size_t row, const std::string& what) : std::runtime_error(what), index(row) {}
  std::size_t index;
};

class BatchEncoder {
 public:
  /// `max_tokens` bounds what one call may return, as offsets are int32. Throws std::invalid_argument if a template has
  /// tokens that the model does not, negative types, too many tokens, or tokens between the texts of a single one.
  BatchEncoder(std::shared_ptr<const TextModel> model, Template single, Template pair,
               std::size_t max_tokens = std::numeric_limits<std::int32_t>::max());

  /// `pairs` is empty or as long as `texts`. May be called by many threads at once.
  EncodedBatch encode(std::span<const std::string_view> texts, std::span<const std::string_view> pairs,
                      const BatchOptions& options) const;

  const TextModel& model() const { return *model_; }
  std::size_t special_tokens(bool pair) const { return (pair ? pair_ : single_).size(); }

 private:
  std::shared_ptr<const TextModel> model_;
  Template single_, pair_;
  std::size_t max_tokens_;
  mutable ScratchPool pool_;
};

}  // namespace bgert
