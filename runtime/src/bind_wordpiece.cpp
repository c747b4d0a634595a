#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <vector>

#include "bind.h"
#include "tokenizer/wordpiece_model.h"

namespace nb = nanobind;

void bind_wordpiece(nb::module_& module) {
  nb::class_<bgert::WordPieceModel, bgert::TextModel>(module, "WordPieceModel")
      .def(
          "__init__",
          [](bgert::WordPieceModel* self, const std::vector<std::string>& vocab, std::string unk_token,
             std::string continuing_subword_prefix, std::size_t max_input_chars_per_word, bool clean_text,
             bool handle_chinese_chars, std::optional<bool> strip_accents, bool lowercase,
             const std::vector<bgert::AddedToken>& added_tokens) {
            new (self) bgert::WordPieceModel(
                vocab, {std::move(unk_token), std::move(continuing_subword_prefix), max_input_chars_per_word},
                {clean_text, handle_chinese_chars, strip_accents, lowercase}, added_tokens);
          },
          nb::arg("vocab"), nb::kw_only(), nb::arg("unk_token"), nb::arg("continuing_subword_prefix"),
          nb::arg("max_input_chars_per_word"), nb::arg("clean_text"), nb::arg("handle_chinese_chars"),
          nb::arg("strip_accents").none(), nb::arg("lowercase"), nb::arg("added_tokens"));
}
