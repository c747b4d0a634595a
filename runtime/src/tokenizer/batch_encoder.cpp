#include "batch_encoder.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "check_template.h"
#include "parallel.h"

namespace bgert {
namespace {

constexpr std::size_t kBlockBytes = 64 << 10;   // work handed to a thread at a time
constexpr std::size_t kThreadBytes = 32 << 10;  // less than this does not pay for starting a thread

using Texts = std::span<const std::string_view>;

std::size_t bytes_of(Texts texts) {
  std::size_t total = 0;
  for (const std::string_view text : texts) total += text.size();
  return total;
}

/// Cuts rows into blocks of about kBlockBytes: block i is rows [cuts[i], cuts[i + 1]).
std::vector<std::size_t> cut_blocks(Texts texts, Texts pairs) {
  std::vector<std::size_t> cuts{0};
  std::size_t bytes = 0;
  for (std::size_t row = 0; row < texts.size(); ++row) {
    bytes += texts[row].size() + (pairs.empty() ? 0 : pairs[row].size()) + 16;  // a row costs something without text
    if (bytes >= kBlockBytes) {
      cuts.push_back(row + 1);
      bytes = 0;
    }
  }
  if (cuts.back() != texts.size()) cuts.push_back(texts.size());
  return cuts;
}

/// The different first texts of pairs. Equal ones are found where they are one string or neighbours.
struct Queries {
  std::vector<std::string_view> texts;
  std::vector<std::size_t> of_row;

  explicit Queries(Texts rows) {
    std::unordered_map<const char*, std::size_t> seen;
    of_row.reserve(rows.size());
    for (const std::string_view row : rows) {
      if (texts.empty() || row != texts[of_row.back()]) {
        const auto [found, added] = seen.try_emplace(row.data(), texts.size());
        if (!added && texts[found->second].size() == row.size()) {
          of_row.push_back(found->second);
          continue;
        }
        found->second = texts.size();
        texts.push_back(row);
        of_row.push_back(texts.size() - 1);
      } else {
        of_row.push_back(of_row.back());
      }
    }
  }
};

/// Tokens that a first text may have before the pair is looked at.
std::size_t most_of_first(const BatchOptions& options) {
  if (options.truncation != Truncation::kFlagEmbedding) return kUnlimited;
  if (options.most_first) return *options.most_first;
  if (options.max_length == kUnlimited) return kUnlimited;
  return options.max_length / 4 * 3 + options.max_length % 4 * 3 / 4;
}

/// One encode call: what all its threads share.
class Job {
 public:
  Job(const TextModel& model, const Template& layout, ScratchPool& pool, Texts texts, Texts pairs,
      const BatchOptions& options)
      : model_(model),
        layout_(layout),
        pool_(pool),
        texts_(texts),
        pairs_(pairs),
        truncation_(options.truncation),
        left_(options.side == TruncationSide::kLeft),
        room_(options.truncation == Truncation::kNone || options.max_length == kUnlimited
                  ? kUnlimited
                  : options.max_length - layout.size()),
        most_first_(most_of_first(options)),
        model_options_{left_ ? kUnlimited : room_, options.split_special_tokens},
        threads_(std::min(options.threads, (bytes_of(texts) + bytes_of(pairs)) / kThreadBytes + 1)) {}

  EncodedBatch run(std::size_t max_tokens);

 private:
  using Scratch = TextModel::Scratch;
  using Ids = std::vector<TokenId>;

  struct Encoded {
    const Ids* ids = nullptr;
    std::size_t begin = 0, count = 0;
  };

  template <typename Work>
  void for_blocks(const std::vector<std::size_t>& cuts, const Work& work) const;
  void encode_queries();
  void encode_row(std::size_t row, Scratch& scratch, Ids& second, Ids& out);
  void encode_pair(std::size_t row, Scratch& scratch, Ids& second, Ids& out);
  bool first_is_longer(std::size_t row, Scratch& scratch) const;
  void fill_types(const EncodedBatch& batch) const;

  const TextModel& model_;
  const Template& layout_;
  ScratchPool& pool_;
  Texts texts_, pairs_;
  Truncation truncation_;
  bool left_;  // texts lose their beginning, so all of their tokens have to be known
  std::size_t room_;
  std::size_t most_first_;  // tokens that a first text may have before the pair is looked at
  EncodeOptions model_options_;
  std::size_t threads_;

  std::vector<std::size_t> query_of_row_;
  std::vector<std::string_view> query_texts_;
  std::vector<Encoded> queries_;
  std::vector<Ids> query_blocks_;
  std::vector<std::size_t> lengths_, first_lengths_;  // per row
  Array<bool> truncated_;
};

template <typename Work>
void Job::for_blocks(const std::vector<std::size_t>& cuts, const Work& work) const {
  const std::size_t blocks = cuts.size() - 1;
  parallel_for(blocks, threads_, [&](const std::function<std::size_t()>& next) {
    auto scratch = pool_.take();
    for (std::size_t block; (block = next()) < blocks;) work(block, *scratch);
    pool_.give(std::move(scratch));
  });
}

void Job::encode_queries() {
  Queries queries(texts_);
  query_of_row_ = std::move(queries.of_row);
  query_texts_ = std::move(queries.texts);
  queries_.resize(query_texts_.size());
  const auto cuts = cut_blocks(query_texts_, {});
  query_blocks_.resize(cuts.size() - 1);
  for_blocks(cuts, [&](std::size_t block, Scratch& scratch) {
    Ids& ids = query_blocks_[block];
    for (std::size_t i = cuts[block]; i < cuts[block + 1]; ++i) {
      const std::size_t begin = ids.size();
      model_.encode(query_texts_[i], model_options_, scratch, ids);
      queries_[i] = {&ids, begin, ids.size() - begin};
    }
  });
}

/// Both texts have more tokens than there is room for: which has more decides who gets the odd one.
bool Job::first_is_longer(std::size_t row, Scratch& scratch) const {
  EncodeOptions options = model_options_;
  for (;;) {
    options.limit = options.limit < kUnlimited / 4 ? options.limit * 4 : kUnlimited;
    Ids first, second;
    model_.encode(texts_[row], options, scratch, first);
    model_.encode(pairs_[row], options, scratch, second);
    if (std::min(first.size(), second.size()) <= options.limit) return first.size() > second.size();
  }
}

void Job::encode_pair(std::size_t row, Scratch& scratch, Ids& second, Ids& out) {
  const Encoded& first = queries_[query_of_row_[row]];
  second.clear();
  model_.encode(pairs_[row], model_options_, scratch, second);
  std::size_t first_count = std::min(first.count, most_first_);
  std::size_t second_count = second.size();
  if (!left_ && truncation_ == Truncation::kLongestFirst && room_ % 2 == 1 && first_count > room_ && second_count > room_) {
    // Counts that stopped early cannot be compared.
    const bool longer = first_is_longer(row, scratch);
    first_count = longer ? room_ + 2 : room_ + 1;
    second_count = longer ? room_ + 1 : room_ + 2;
  }
  const PairLengths keep = truncate_pair(first_count, second_count, room_, truncation_);
  if (!keep.enough) {
    const bool only_first = truncation_ == Truncation::kOnlyFirst;
    throw BatchInputError(row, std::string("its ") + (only_first ? "pair" : "text") + " alone has " +
                                   std::to_string(room_) + " tokens or more, so cutting the " +
                                   (only_first ? "text" : "pair") + " cannot bring it under max_length");
  }
  const TokenId* ids = first.ids->data() + first.begin + (left_ ? first.count - keep.first : 0);
  out.insert(out.end(), ids, ids + keep.first);
  out.insert(out.end(), layout_.middle.ids.begin(), layout_.middle.ids.end());
  ids = second.data() + (left_ ? second.size() - keep.second : 0);
  out.insert(out.end(), ids, ids + keep.second);
  first_lengths_[row] = keep.first;
  truncated_.data[row] = keep.first < first.count || keep.second < second.size();
}

void Job::encode_row(std::size_t row, Scratch& scratch, Ids& second, Ids& out) {
  const std::size_t begin = out.size();
  out.insert(out.end(), layout_.prefix.ids.begin(), layout_.prefix.ids.end());
  if (!pairs_.empty()) {
    encode_pair(row, scratch, second, out);
  } else {
    const std::size_t text = out.size();
    model_.encode(texts_[row], model_options_, scratch, out);
    truncated_.data[row] = out.size() - text > room_;
    if (truncated_.data[row] && left_) {
      out.erase(out.begin() + static_cast<std::ptrdiff_t>(text), out.end() - static_cast<std::ptrdiff_t>(room_));
    } else if (truncated_.data[row]) {
      out.resize(text + room_);
    }
  }
  out.insert(out.end(), layout_.suffix.ids.begin(), layout_.suffix.ids.end());
  lengths_[row] = out.size() - begin;
}

EncodedBatch Job::run(std::size_t max_tokens) {
  const std::size_t rows = texts_.size();
  lengths_.resize(rows);
  truncated_ = Array<bool>(rows);
  if (!pairs_.empty()) {
    first_lengths_.resize(rows);
    encode_queries();
  }
  const auto cuts = cut_blocks(texts_, pairs_);
  std::vector<Ids> blocks(cuts.size() - 1);
  for_blocks(cuts, [&](std::size_t block, Scratch& scratch) {
    Ids second;
    for (std::size_t row = cuts[block]; row < cuts[block + 1]; ++row) encode_row(row, scratch, second, blocks[block]);
  });

  EncodedBatch batch;
  batch.cu_seqlens = Array<std::int32_t>(rows + 1);
  std::size_t total = 0;
  batch.cu_seqlens.data[0] = 0;
  for (std::size_t row = 0; row < rows; ++row) {
    total += lengths_[row];
    if (total > max_tokens) {
      throw BatchInputError(row, "with it the batch has more than " + std::to_string(max_tokens) +
                                     " tokens, which int32 offsets cannot hold; encode fewer texts at a time");
    }
    batch.cu_seqlens.data[row + 1] = static_cast<std::int32_t>(total);
  }
  batch.ids = Array<TokenId>(total);
  batch.type_ids = Array<std::int32_t>(total);
  for (std::size_t block = 0; block < blocks.size(); ++block) {
    TokenId* to = batch.ids.data.get() + batch.cu_seqlens.data[cuts[block]];
    std::copy(blocks[block].begin(), blocks[block].end(), to);
    Ids().swap(blocks[block]);
  }
  fill_types(batch);
  batch.truncated = std::move(truncated_);
  return batch;
}

void Job::fill_types(const EncodedBatch& batch) const {
  std::int32_t* to = batch.type_ids.data.get();
  const bool pair = !pairs_.empty();
  if (!pair && layout_.prefix.type == layout_.first_type && layout_.suffix.type == layout_.first_type) {
    std::fill(to, to + batch.type_ids.size, layout_.first_type);
    return;
  }
  const auto part = [&to](std::size_t count, std::int32_t type) { to = std::fill_n(to, count, type); };
  for (std::size_t row = 0; row < texts_.size(); ++row) {
    const std::size_t texts = lengths_[row] - layout_.size();
    part(layout_.prefix.ids.size(), layout_.prefix.type);
    part(pair ? first_lengths_[row] : texts, layout_.first_type);
    if (pair) {
      part(layout_.middle.ids.size(), layout_.middle.type);
      part(texts - first_lengths_[row], layout_.second_type);
    }
    part(layout_.suffix.ids.size(), layout_.suffix.type);
  }
}

Template without_tokens(Template layout) {
  for (TemplatePart* part : {&layout.prefix, &layout.middle, &layout.suffix}) part->ids.clear();
  return layout;
}

std::shared_ptr<const TextModel> required(std::shared_ptr<const TextModel> model) {
  if (model == nullptr) throw std::invalid_argument("there is no model");
  return model;
}

}  // namespace

BatchEncoder::BatchEncoder(std::shared_ptr<const TextModel> model, Template single, Template pair,
                           std::size_t max_tokens)
    : model_(required(std::move(model))),
      single_(checked(std::move(single), *model_, false)),
      pair_(checked(std::move(pair), *model_, true)),
      max_tokens_(max_tokens),
      pool_(*model_) {}

EncodedBatch BatchEncoder::encode(std::span<const std::string_view> texts, std::span<const std::string_view> pairs,
                                  const BatchOptions& options) const {
  if (!pairs.empty() && pairs.size() != texts.size()) throw BatchOptionError("texts and pairs differ in length");
  const Template& full = pairs.empty() ? single_ : pair_;
  const Template layout = options.add_special_tokens ? full : without_tokens(full);
  if (options.truncation != Truncation::kNone && options.max_length < layout.size()) {
    throw BatchOptionError("max_length is " + std::to_string(options.max_length) + ", but the special tokens alone are " +
                           std::to_string(layout.size()));
  }
  return Job(*model_, layout, pool_, texts, pairs, options).run(max_tokens_);
}

}  // namespace bgert
