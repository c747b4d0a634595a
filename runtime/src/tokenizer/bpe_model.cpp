#include "bpe_model.h"

#include <utility>

#include "bpe_pass.h"
#include "byte_level.h"
#include "char_classes.h"
#include "nfc.h"

namespace bgert {

BpeModel::BpeModel(std::string_view file, const BpeOptions& options, const std::vector<AddedToken>& added_tokens)
    : BpeModel(BpeFile(file), options, added_tokens, {}) {}

BpeModel::BpeModel(const BpeFile& file, const BpeOptions& options, const std::vector<AddedToken>& added_tokens,
                   AddedTokenSets tokens)
    : options_(options),
      vocab_size_(file.pieces.size()),
      vocabulary_(file.pieces, added_tokens),
      bpe_(file, options.ignore_merges),
      classes_(char_classes()) {
  tokens = partition(added_tokens, vocab_size_);
  id_count_ = tokens.id_count;
  const auto raw = patterns(tokens.raw, false), normalized = patterns(tokens.normalized, true);
  raw_ = AddedTokens(std::move(tokens.raw), raw);
  normalized_ = AddedTokens(std::move(tokens.normalized), normalized);
}

std::string BpeModel::normal_form(std::string_view text) const {
  if (!options_.nfc || is_quickly_nfc(text)) return std::string(text);
  std::string normal;
  append_nfc(text, normal);
  return normal;
}

std::vector<std::string> BpeModel::patterns(const std::vector<AddedToken>& tokens, bool normalized) const {
  std::vector<std::string> found;
  found.reserve(tokens.size());
  for (const AddedToken& token : tokens) found.push_back(normalized ? normal_form(token.content) : token.content);
  return found;
}

std::unique_ptr<TextModel::Scratch> BpeModel::make_scratch() const { return std::make_unique<BpeScratch>(); }

void BpeModel::encode(std::string_view text, const EncodeOptions& options, Scratch& scratch,
                      std::vector<TokenId>& ids) const {
  auto& own = static_cast<BpeScratch&>(scratch);
  const std::size_t room = static_cast<std::size_t>(-1) - ids.size();
  const std::size_t limit = options.limit < room ? ids.size() + options.limit : static_cast<std::size_t>(-1);
  const auto run = [&](std::string_view part) {
    if (options_.add_prefix_space && !part.starts_with(' ')) {
      own.prefixed.assign(1, ' ').append(part);
      part = own.prefixed;
    }
    BpePass(bpe_, classes_, own, ids, limit).run(options_.pattern, part);
  };
  AddedTokens::Cursor raw(raw_, text, options.split_special_tokens);
  for (Segment segment; ids.size() <= limit && raw.next(segment);) {
    if (segment.is_token()) {
      ids.push_back(segment.id);
      continue;
    }
    std::string_view normal = segment.text;
    if (options_.nfc && !is_quickly_nfc(normal)) {
      own.normalized.clear();
      append_nfc(normal, own.normalized);
      normal = own.normalized;
    }
    if (normalized_.empty()) {
      run(normal);
      continue;
    }
    AddedTokens::Cursor cursor(normalized_, normal, options.split_special_tokens);
    for (Segment part; ids.size() <= limit && cursor.next(part);) {
      if (part.is_token()) {
        ids.push_back(part.id);
      } else {
        run(part.text);
      }
    }
  }
}

std::string BpeModel::join(std::span<const std::string_view> tokens) const { return join_byte_level(tokens); }

}  // namespace bgert
