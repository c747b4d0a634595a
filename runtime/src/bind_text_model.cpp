#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "bind.h"
#include "tokenizer/decoder.h"
#include "tokenizer/text_model.h"
#include "tokenizer/vocabulary.h"

namespace nb = nanobind;

namespace {

using Numbers = std::unique_ptr<std::int32_t[]>;
using Spans = std::tuple<nb::ndarray<nb::numpy, std::int32_t, nb::ndim<1>>, nb::ndarray<nb::numpy, std::int32_t, nb::ndim<2>>>;
using Ids = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

nb::capsule owner(Numbers& numbers) {
  return {numbers.release(), [](void* p) noexcept { delete[] static_cast<std::int32_t*>(p); }};
}

Spans encode_spans(const bgert::TextModel& model, nb::handle text, bool split_special_tokens, bool as_hf) {
  const std::string_view view = text_view(text, "text");
  if (view.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    raise_error("InvalidTextError", "text has more than 2 GiB, whose offsets int32 cannot hold; pass it in parts");
  }
  std::vector<bgert::TokenSpan> spans;
  {
    const nb::gil_scoped_release release;
    model.encode_spans(view, {split_special_tokens, as_hf}, spans);
  }
  Numbers ids(new std::int32_t[spans.size()]);
  Numbers offsets(new std::int32_t[2 * spans.size()]);
  for (std::size_t i = 0; i < spans.size(); ++i) {
    ids[i] = spans[i].id;
    offsets[2 * i] = static_cast<std::int32_t>(spans[i].start);
    offsets[2 * i + 1] = static_cast<std::int32_t>(spans[i].stop);
  }
  std::int32_t* const id_data = ids.get();
  std::int32_t* const offset_data = offsets.get();
  return {{id_data, {spans.size()}, owner(ids)}, {offset_data, {spans.size(), 2}, owner(offsets)}};
}

std::string decode(const bgert::TextModel& model, const Ids& ids, bool skip_special_tokens) {
  try {
    return bgert::decode(model, {ids.data(), ids.size()}, skip_special_tokens);
  } catch (const bgert::UnknownIdError& error) {
    raise_error("InvalidTextError", "ids[" + std::to_string(error.index) + "] is " + std::to_string(error.id) +
                                        ", which is the id of no token of this tokenizer");
  }
}

std::optional<std::string> token(const bgert::TextModel& model, std::int64_t id) {
  if (id < 0 || id > std::numeric_limits<bgert::TokenId>::max()) return std::nullopt;
  const auto found = model.vocabulary().token(static_cast<bgert::TokenId>(id));
  return found ? std::make_optional<std::string>(*found) : std::nullopt;
}

}  // namespace

void bind_text_model(nb::module_& module) {
  nb::class_<bgert::TextModel>(module, "TextModel")
      .def_prop_ro("vocab_size", &bgert::TextModel::vocab_size)
      .def("token", &token, nb::arg("token_id"))
      .def("decode", &decode, nb::arg("ids"), nb::kw_only(), nb::arg("skip_special_tokens"),
           nb::sig("def decode(self, ids: numpy.typing.NDArray[numpy.int64], *, skip_special_tokens: bool) -> str"))
      .def("encode_spans", &encode_spans, nb::arg("text").none(), nb::kw_only(), nb::arg("split_special_tokens"),
           nb::arg("as_hf"),
           nb::sig("def encode_spans(self, text: str, *, split_special_tokens: bool, as_hf: bool) -> "
                   "tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.int32]]"));
}
