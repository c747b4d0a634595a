#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "tokenizer/batch_encoder.h"
#include "bind.h"

namespace nb = nanobind;
using bgert::TokenId;

namespace {

template <typename T>
using NumpyArray = nb::ndarray<nb::numpy, T, nb::ndim<1>>;
using EncodeResult =
    std::tuple<NumpyArray<TokenId>, NumpyArray<std::int32_t>, NumpyArray<std::int32_t>, NumpyArray<bool>>;

/// Python strings as UTF-8. Holds references to the strings, so the caller's list may change meanwhile.
class TextList {
 public:
  TextList(nb::handle sequence, const char* name) : items_(nb::steal<nb::tuple>(PySequence_Tuple(sequence.ptr()))) {
    if (!items_.is_valid()) throw nb::python_error();
    const std::size_t size = nb::len(items_);
    views_.reserve(size);
    for (std::size_t i = 0; i < size; ++i) {
      PyObject* item = PyTuple_GetItem(items_.ptr(), static_cast<Py_ssize_t>(i));  // kept alive by items_
      views_.push_back(text_view(item, std::string(name) + "[" + std::to_string(i) + "]"));
    }
  }

  const std::vector<std::string_view>& views() const { return views_; }

 private:
  nb::tuple items_;
  std::vector<std::string_view> views_;
};

template <typename T>
NumpyArray<T> to_numpy(bgert::Array<T> array) {
  T* data = array.data.get();
  const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  array.data.release();
  return NumpyArray<T>(data, {array.size}, owner);
}

bgert::Truncation truncation_of(const std::string& name) {
  if (name == "longest_first") return bgert::Truncation::kLongestFirst;
  if (name == "only_first") return bgert::Truncation::kOnlyFirst;
  if (name == "only_second") return bgert::Truncation::kOnlySecond;
  if (name == "flag_embedding") return bgert::Truncation::kFlagEmbedding;
  if (name == "do_not_truncate") return bgert::Truncation::kNone;
  raise_error("InvalidOptionError", "unknown truncation '" + name + "'");
}

bgert::TruncationSide side_of(const std::string& name) {
  if (name == "right") return bgert::TruncationSide::kRight;
  if (name == "left") return bgert::TruncationSide::kLeft;
  raise_error("InvalidOptionError", "unknown truncation_side '" + name + "'");
}

EncodeResult encode(const bgert::BatchEncoder& encoder, nb::handle texts, nb::handle pairs,
                    std::optional<std::size_t> max_length, const std::string& truncation,
                    std::optional<std::size_t> query_max_length, const std::string& truncation_side, bool add_special_tokens, bool split_special_tokens,
                    std::size_t threads) {
  bgert::BatchOptions options;
  options.max_length = max_length.value_or(bgert::kUnlimited);
  options.truncation = truncation_of(truncation);
  options.most_first = query_max_length;
  options.side = side_of(truncation_side);
  options.add_special_tokens = add_special_tokens;
  options.split_special_tokens = split_special_tokens;
  options.threads = threads;
  const TextList first(texts, "texts");
  const std::optional<TextList> second =
      pairs.is_none() ? std::nullopt : std::make_optional<TextList>(pairs, "pairs");
  bgert::EncodedBatch batch;
  try {
    const nb::gil_scoped_release release;
    const std::span<const std::string_view> none;
    batch = encoder.encode(first.views(), second ? std::span(second->views()) : none, options);
  } catch (const bgert::BatchOptionError& error) {
    raise_error("InvalidOptionError", error.what());
  } catch (const bgert::BatchInputError& error) {
    raise_error("InvalidTextError", "texts[" + std::to_string(error.index) + "]: " + error.what());
  }
  return {to_numpy(std::move(batch.ids)), to_numpy(std::move(batch.cu_seqlens)), to_numpy(std::move(batch.type_ids)),
          to_numpy(std::move(batch.truncated))};
}

}  // namespace

void bind_batch_encoder(nb::module_& module) {
  using Ids = std::vector<TokenId>;
  nb::class_<bgert::Template>(module, "Template")
      .def(
          "__init__",
          [](bgert::Template* self, Ids prefix, Ids middle, Ids suffix, std::int32_t prefix_type,
             std::int32_t first_type, std::int32_t middle_type, std::int32_t second_type, std::int32_t suffix_type) {
            new (self) bgert::Template{{std::move(prefix), prefix_type},
                                       {std::move(middle), middle_type},
                                       {std::move(suffix), suffix_type},
                                       first_type,
                                       second_type};
          },
          nb::kw_only(), nb::arg("prefix"), nb::arg("middle"), nb::arg("suffix"), nb::arg("prefix_type"),
          nb::arg("first_type"), nb::arg("middle_type"), nb::arg("second_type"), nb::arg("suffix_type"));

  nb::class_<bgert::BatchEncoder>(module, "BatchEncoder")
      .def(
          "__init__",
          [](bgert::BatchEncoder* self, std::shared_ptr<bgert::TextModel> model, const bgert::Template& single,
             const bgert::Template& pair) { new (self) bgert::BatchEncoder(std::move(model), single, pair); },
          nb::arg("model"), nb::arg("single"), nb::arg("pair"))
      .def("encode", &encode, nb::arg("texts"), nb::arg("pairs").none(), nb::kw_only(), nb::arg("max_length").none(),
           nb::arg("truncation"), nb::arg("query_max_length").none(), nb::arg("truncation_side"), nb::arg("add_special_tokens"), nb::arg("split_special_tokens"), nb::arg("threads"),
           nb::sig("def encode(self, texts: collections.abc.Sequence[str], pairs: collections.abc.Sequence[str] | None, "
                   "*, max_length: int | None, truncation: str, query_max_length: int | None, truncation_side: str, add_special_tokens: bool, split_special_tokens: bool, "
                   "threads: int) -> tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.int32], "
                   "numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.bool_]]"));
}
