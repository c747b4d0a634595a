import numpy as np
import pytest

from bgert.errors import InvalidOptionError
from bgert.results import Embeddings, RunInfo, convert, output_shape, shorten

VECTORS = np.array([[3.0, -4.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
INFO = RunInfo("cpu", "fp32", "engine 1", 7, np.zeros(2, np.bool_))


def test_info_stays_with_the_result_and_not_with_what_is_made_of_it():
    result = Embeddings.of(VECTORS, INFO)
    assert result.info is INFO
    assert (result @ result.T).info is None
    assert result[0].info is None
    assert np.shares_memory(result, VECTORS)


def test_shorten_renormalises():
    shorter = shorten(VECTORS, 2, True)
    np.testing.assert_allclose(shorter, [[0.6, -0.8], [0, 0]], atol=1e-7)


def test_shorten_leaves_lengths_of_models_that_do_not_normalise():
    np.testing.assert_array_equal(shorten(VECTORS, 2, False), VECTORS[:, :2])
    assert shorten(VECTORS, None, True) is VECTORS


def test_int8_scales_each_row_by_its_own_largest_component():
    assert convert(VECTORS, "int8").tolist() == [[95, -127, 16, 0], [0, 0, 0, 0]]


def test_ubinary_is_one_bit_a_dimension_most_significant_first():
    bits = np.array([[1, -1, 1, 1, -1, -1, 0, 2.0]], np.float32)
    assert convert(bits, "ubinary").tolist() == [[0b10110001]]


@pytest.mark.parametrize("dtype", ["binary", "ubinary"])
def test_bits_are_those_of_sentence_transformers(dtype):
    quantize = pytest.importorskip("sentence_transformers.util.quantization").quantize_embeddings
    vectors = np.random.default_rng(7).standard_normal((50, 384)).astype(np.float32)
    vectors[0, ::3] = 0
    expected, found = quantize(vectors, precision=dtype), convert(vectors, dtype)
    assert (found.dtype, found.shape) == (expected.dtype, (50, 48)) == (output_shape(384, dtype)[1], (50, 48))
    assert np.array_equal(found, expected)


def test_float16_and_float32():
    assert convert(VECTORS, "float16").dtype == np.float16
    assert convert(VECTORS, "float32") is VECTORS


def test_output_shape():
    assert output_shape(384, "ubinary") == (48, np.uint8)
    assert output_shape(384, "int8") == (384, np.int8)
    with pytest.raises(InvalidOptionError, match="float32, float16, int8, binary, ubinary"):
        output_shape(384, "float64")
    with pytest.raises(InvalidOptionError, match="multiple of 8"):
        output_shape(12, "ubinary")
