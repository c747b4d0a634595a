// What a stranger's model folder may hand to the tokenizer core: any number in every place, through the constructors that
// the loader calls. They refuse, or what they make holds its promises.
#pragma once

#include <limits>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "fuzz_common.h"

namespace bgert::fuzz {

/// Mostly numbers from 0 up to `most`, sometimes just outside or at the ends of int32.
inline std::int32_t hostile_number(std::size_t most) {
  static const std::vector<std::int32_t> ends = {-1, std::numeric_limits<std::int32_t>::min(), 1 << 29,
                                                 std::numeric_limits<std::int32_t>::max()};
  if (chance(3)) return pick(ends);
  return static_cast<std::int32_t>(below(most + (chance(5) ? 2 : 1)));
}

inline std::size_t hostile_size() {
  static const std::vector<std::size_t> sizes = {0, 1, 7, 100, 100, 100, 1000, 1001, std::size_t{1} << 31,
                                                 std::numeric_limits<std::size_t>::max()};
  return pick(sizes);
}

inline std::vector<AddedToken> hostile_tokens(std::size_t vocab_size, std::string (*text)(std::size_t)) {
  std::vector<AddedToken> tokens;
  for (std::size_t i = below(6); i > 0; --i) {
    std::string content = chance(20) ? " " : text(chance(10) ? 0 : 4);
    if (chance(5)) content = mutated(std::move(content));
    if (chance(2)) content.assign(below(3000), 'a');
    if (chance(5) && !tokens.empty()) content = tokens.back().content;
    tokens.push_back({content, hostile_number(vocab_size), chance(40), chance(30), chance(40), chance(40), chance(40)});
  }
  return tokens;
}

inline TemplatePart hostile_part(std::size_t id_count) {
  TemplatePart part;
  for (std::size_t i = chance(3) ? below(600) : below(4); i > 0; --i) part.ids.push_back(hostile_number(id_count - 1));
  part.type = hostile_number(3);
  return part;
}

inline Template hostile_template(std::size_t id_count, bool pair) {
  Template layout{hostile_part(id_count), hostile_part(id_count), hostile_part(id_count), hostile_number(3),
                  hostile_number(3)};
  if (!pair && chance(85)) layout.middle.ids.clear();
  return layout;
}

inline void append_row(const Template& layout, std::size_t first, std::size_t second, bool pair,
                       std::vector<std::int32_t>& types) {
  const auto part = [&types](std::size_t count, std::int32_t type) { types.insert(types.end(), count, type); };
  part(layout.prefix.ids.size(), layout.prefix.type);
  part(first, layout.first_type);
  if (pair) part(layout.middle.ids.size(), layout.middle.type);
  if (pair) part(second, layout.second_type);
  part(layout.suffix.ids.size(), layout.suffix.type);
}

/// Batches by templates of any numbers: refused, or laid out as they say.
inline void check_hostile_templates(const std::shared_ptr<const TextModel>& model,
                                    const std::vector<std::string>& texts) {
  const Template single = hostile_template(model->id_count(), false), pair = hostile_template(model->id_count(), true);
  std::unique_ptr<BatchEncoder> encoder;
  try {
    encoder = std::make_unique<BatchEncoder>(model, single, pair);
  } catch (const std::invalid_argument&) {
    return;
  }
  const bool pairs = chance(50);
  const Template& layout = pairs ? pair : single;
  const std::vector<std::string_view> first(texts.begin(), texts.end());
  const std::vector<std::string_view> second(texts.rbegin(), pairs ? texts.rend() : texts.rbegin());
  BatchOptions options;
  options.truncation = Truncation::kNone;
  options.threads = 1 + below(3);
  const EncodedBatch batch = encoder->encode(first, second, options);
  const auto scratch = model->make_scratch();
  std::vector<TokenId> ids;
  std::vector<std::int32_t> types;
  for (std::size_t row = 0; row < first.size(); ++row) {
    const auto append = [&ids](const std::vector<TokenId>& more) { ids.insert(ids.end(), more.begin(), more.end()); };
    const std::vector<TokenId> a = encode(*model, first[row], {}, *scratch);
    const std::vector<TokenId> b = pairs ? encode(*model, second[row], {}, *scratch) : std::vector<TokenId>();
    append(layout.prefix.ids);
    append(a);
    if (pairs) append(layout.middle.ids);
    append(b);
    append(layout.suffix.ids);
    append_row(layout, a.size(), b.size(), pairs, types);
  }
  const auto equal = [](const auto& found, const auto& wanted) {
    return std::equal(found.span().begin(), found.span().end(), wanted.begin(), wanted.end());
  };
  if (!equal(batch.ids, ids)) fail("rows hold what the template says", texts.front());
  if (!equal(batch.type_ids, types)) fail("types are those of the template", texts.front());
  for (const TokenId id : ids) {
    if (id < 0 || static_cast<std::size_t>(id) >= model->id_count()) fail("ids are below id_count", texts.front());
  }
}

/// Checks the model that `make` builds of hostile settings, if it does not refuse them.
template <typename Make>
void check_hostile_model(const Make& make, std::string (*text)(std::size_t)) {
  std::shared_ptr<const TextModel> model;
  try {
    model = make();
  } catch (const std::invalid_argument&) {
    return;
  }
  if (model->id_count() < model->vocab_size()) fail("id_count covers the vocabulary", "");
  const Tested tested{model, static_cast<TokenId>(model->id_count()) - 1};
  const auto scratch = model->make_scratch();
  std::vector<std::string> texts;
  for (int i = 0; i < 10; ++i) texts.push_back(chance(10) ? std::string(below(300), ' ') : text(40));
  for (const std::string& one : texts) check_text(tested, one, *scratch);
  for (int i = 0; i < 4; ++i) check_hostile_templates(model, texts);
}

}  // namespace bgert::fuzz
