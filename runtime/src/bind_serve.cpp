#include <nanobind/ndarray.h>

#include <span>
#include <stdexcept>

#include "bind.h"
#include "serve/row_text.h"

namespace nb = nanobind;

namespace {

template <typename T>
using Matrix = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

nb::list to_list(const bgert::RowTexts& rows) {
  nb::list texts;
  std::size_t begin = 0;
  for (const std::size_t end : rows.ends) {
    texts.append(nb::bytes(rows.text.data() + begin, end - begin));
    begin = end;
  }
  return texts;
}

template <typename T, typename Convert>
nb::list convert(const Matrix<T>& matrix, Convert rows_of) {
  bgert::RowTexts rows;
  try {
    const nb::gil_scoped_release release;
    rows = rows_of(std::span<const T>(matrix.data(), matrix.size()), matrix.shape(1));
  } catch (const std::domain_error& error) {
    raise_error("NonFiniteOutputError", error.what());
  }
  return to_list(rows);
}

}  // namespace

void bind_serve(nb::module_& module) {
  module.def(
      "json_rows", [](const Matrix<float>& values) { return convert<float>(values, bgert::json_rows); },
      nb::arg("values").noconvert(),
      nb::sig("def json_rows(values: numpy.typing.NDArray[numpy.float32]) -> list[bytes]"));
  module.def(
      "base64_rows", [](const Matrix<std::uint8_t>& values) { return convert<std::uint8_t>(values, bgert::base64_rows); },
      nb::arg("values").noconvert(),
      nb::sig("def base64_rows(values: numpy.typing.NDArray[numpy.uint8]) -> list[bytes]"));
}
