"""Rows of numbers as text: exact, and as Python's own reader and base64 have it."""

import base64
import json

import numpy as np
import pytest

from bgert._native import base64_rows, json_rows
from bgert.errors import NonFiniteOutputError


def test_floats_read_back_with_their_bits():
    seed = np.random.SeedSequence().entropy
    print("seed", seed)
    bits = np.random.default_rng(seed).integers(0, 2**32, size=(500, 384), dtype=np.uint32)
    values = bits.view(np.float32)
    values[~np.isfinite(values)] = 1
    found = np.array([json.loads(row) for row in json_rows(values)])
    assert found.astype(np.float32).tobytes() == values.tobytes()


def test_floats_have_the_fewest_digits():
    """numpy's own shortest form has as many digits."""
    values = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)

    def digits(text):
        return len(text.lstrip("-").partition("e")[0].replace(".", "").strip("0"))

    for row, text in zip(values, json_rows(values), strict=True):
        for value, written in zip(row, text[1:-1].decode().split(","), strict=True):
            assert digits(written) == digits(np.format_float_scientific(value, unique=True, trim="-"))


def test_every_number_reads_as_a_float():
    values = np.array([[0, -0.0, 1, -3, 1e20, 1e-45, 123456789, 3.4028235e38, 0.1]], np.float32)
    (text,) = json_rows(values)
    found = json.loads(text)
    assert all(isinstance(value, float) for value in found)
    assert np.array(found, np.float32).tobytes() == values.tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_json_cannot_say_is_refused(bad):
    with pytest.raises(NonFiniteOutputError, match="row 1"):
        json_rows(np.array([[1, 2], [3, bad]], np.float32))


@pytest.mark.parametrize("width", range(1, 20))
def test_base64_of_any_width(width):
    values = np.random.default_rng(width).integers(0, 256, size=(4, width), dtype=np.uint8)
    assert base64_rows(values) == [base64.b64encode(row.tobytes()) for row in values]


def test_no_rows_and_wrong_arrays():
    assert json_rows(np.zeros((0, 3), np.float32)) == []
    assert base64_rows(np.zeros((0, 3), np.uint8)) == []
    with pytest.raises(TypeError):
        json_rows(np.zeros((2, 3), np.float64))
    with pytest.raises(TypeError):
        json_rows(np.zeros(3, np.float32))
