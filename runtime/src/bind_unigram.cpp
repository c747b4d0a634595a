#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <string_view>
#include <vector>

#include "bind.h"
#include "tokenizer/unigram_model.h"

namespace nb = nanobind;

void bind_unigram(nb::module_& module) {
  nb::class_<bgert::UnigramModel, bgert::TextModel>(module, "UnigramModel")
      .def(
          "__init__",
          [](bgert::UnigramModel* self, const nb::bytes& data, const std::vector<bgert::AddedToken>& added_tokens) {
            new (self) bgert::UnigramModel({static_cast<const char*>(data.data()), data.size()}, added_tokens);
          },
          nb::arg("data"), nb::kw_only(), nb::arg("added_tokens"));
}
