#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "bind.h"
#include "tokenizer/bpe_model.h"

namespace nb = nanobind;

void bind_bpe(nb::module_& module) {
  nb::class_<bgert::BpeModel, bgert::TextModel>(module, "BpeModel")
      .def(
          "__init__",
          [](bgert::BpeModel* self, const nb::bytes& data, const std::string& pattern, bool nfc, bool ignore_merges,
             bool add_prefix_space, bool trim_offsets, bool keep_first_space,
             const std::vector<bgert::AddedToken>& added_tokens) {
            const auto known = bgert::split_pattern(pattern);
            if (!known) throw std::invalid_argument("the split pattern '" + pattern + "' is unknown");
            new (self) bgert::BpeModel(
                {static_cast<const char*>(data.data()), data.size()},
                {*known, nfc, ignore_merges, add_prefix_space, trim_offsets, keep_first_space}, added_tokens);
          },
          nb::arg("data"), nb::kw_only(), nb::arg("pattern"), nb::arg("nfc"), nb::arg("ignore_merges"),
          nb::arg("add_prefix_space"), nb::arg("trim_offsets"), nb::arg("keep_first_space"), nb::arg("added_tokens"));
}
