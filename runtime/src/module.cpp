// bgert._native: translation between Python and the core, nothing else.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "bind.h"
#include "tokenizer/text_model.h"

namespace nb = nanobind;

void raise_error(const char* name, const std::string& message) {
  const nb::object type = nb::module_::import_("bgert.errors").attr(name);
  PyErr_SetString(type.ptr(), message.c_str());
  throw nb::python_error();
}

std::string_view text_view(nb::handle item, const std::string& place) {
  if (!PyUnicode_Check(item.ptr())) {
    raise_error("InvalidTextError", place + " is " + nb::str(item.type().attr("__name__")).c_str() + ", not str");
  }
  Py_ssize_t size = 0;
  if (const char* data = PyUnicode_AsUTF8AndSize(item.ptr(), &size)) return {data, static_cast<std::size_t>(size)};
  nb::python_error error;
  if (!error.matches(PyExc_UnicodeEncodeError)) throw error;
  const auto position = nb::cast<std::size_t>(error.value().attr("start"));
  raise_error("InvalidTextError", place + " has a lone surrogate at position " + std::to_string(position) +
                                      ", which no UTF-8 text can hold; decode the text with errors='replace'");
}

NB_MODULE(_native, module) {
  module.doc() = "The tokenizer core of bgert. Use bgert.Tokenizer.";
  // An encoder in a global variable lives until the interpreter ends, which is no leak to tell users of.
  nb::set_leak_warnings(false);

  nb::class_<bgert::AddedToken>(module, "AddedToken")
      .def(
          "__init__",
          [](bgert::AddedToken* self, std::string content, bgert::TokenId id, bool special, bool single_word,
             bool lstrip, bool rstrip, bool normalized) {
            new (self) bgert::AddedToken{std::move(content), id, special, single_word, lstrip, rstrip, normalized};
          },
          nb::kw_only(), nb::arg("content"), nb::arg("token_id"), nb::arg("special"), nb::arg("single_word"),
          nb::arg("lstrip"), nb::arg("rstrip"), nb::arg("normalized"));

  bind_text_model(module);
  bind_wordpiece(module);
  bind_unigram(module);
  bind_bpe(module);
  bind_batch_encoder(module);
  bind_serve(module);
}
