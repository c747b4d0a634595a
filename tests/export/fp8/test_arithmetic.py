"""E4M3 in numpy beside ml_dtypes and torch, bit for bit."""

import ml_dtypes
import numpy as np
import pytest
import torch

from bgert_export.fp8.arithmetic import LEAST, decode, encode, quantize_rows, rounded, to_half

CODES = np.arange(256, dtype=np.uint8)


def around(values):
    """Numbers, the middles between neighbours, and the float32 beside each of these."""
    values = np.sort(values[np.isfinite(values)].astype(np.float32))
    middles = (values[:-1] + values[1:]) / np.float32(2)
    points = np.concatenate([values, middles])
    beside = [np.nextafter(points, np.float32(to)) for to in (-np.inf, np.inf)]
    return np.concatenate([points, *beside, np.float32([np.nan, 0.0, -0.0])])


def drawn(count=1 << 20, seed=3):
    print(f"seed {seed}")
    values = np.random.default_rng(seed).integers(0, 1 << 32, count, dtype=np.uint32).view(np.float32)
    return values[~np.isnan(values)]


def test_every_code_is_the_number_that_others_say():
    np.testing.assert_array_equal(decode(CODES), CODES.view(ml_dtypes.float8_e4m3fn).astype(np.float32))
    np.testing.assert_array_equal(decode(CODES), torch.from_numpy(CODES).view(torch.float8_e4m3fn).float().numpy())


@pytest.mark.parametrize("values", [around(decode(CODES)), drawn()], ids=["neighbours", "random"])
def test_rounding_is_that_of_others_which_do_not_saturate(values):
    within = np.clip(values, -448, 448)
    numbers = ~np.isnan(values)
    with np.errstate(invalid="ignore"):  # of NaN
        theirs = within.astype(ml_dtypes.float8_e4m3fn)
    np.testing.assert_array_equal(encode(values)[numbers], theirs.view(np.uint8)[numbers])
    torchs = torch.from_numpy(within).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    np.testing.assert_array_equal(encode(values)[numbers], torchs[numbers])
    assert (encode(values)[~numbers] & 0x7F == 0x7F).all()
    np.testing.assert_array_equal(rounded(values), theirs.astype(np.float32))


def test_too_large_becomes_the_largest():
    values = np.float32([448.001, 464, 465, 1e30, np.inf])
    assert (encode(values) == 0x7E).all()
    assert (encode(-values) == 0xFE).all()


def test_what_is_given_stays_as_it_is():
    values = drawn(1000)
    kept = values.copy()
    rounded(values), encode(values), to_half(values)
    np.testing.assert_array_equal(values.view(np.uint32), kept.view(np.uint32))


@pytest.mark.parametrize(
    "values",
    [around(np.arange(1 << 16, dtype=np.uint16).view(np.float16)), drawn(seed=4)],
    ids=["neighbours", "random"],
)
def test_float16_is_numpys(values):
    with np.errstate(over="ignore"):
        theirs = values.astype(np.float16).astype(np.float32)
    ours = to_half(values)
    np.testing.assert_array_equal(ours, theirs)
    numbers = ~np.isnan(theirs)
    np.testing.assert_array_equal(np.signbit(ours)[numbers], np.signbit(theirs)[numbers])


def test_rows_have_their_own_scales_and_every_step_is_one_rounding():
    print("seed 5")
    draw = np.random.default_rng(5)
    rows = (draw.standard_normal((257, 96)) * np.exp2(draw.uniform(-14, 12, (257, 1)))).astype(np.float32)
    rows[17] = 0
    numbers, scales = quantize_rows(rows)
    x = torch.from_numpy(rows)
    largest = x.abs().amax(1).clamp(min=LEAST)
    np.testing.assert_array_equal(scales, (largest / 448).numpy())
    theirs = (x * (torch.tensor(448.0) / largest)[:, None]).clamp(-448, 448).to(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(numbers, theirs)
    assert not numbers[17].any()
    assert scales[17] > 0
    nonzero = np.arange(257) != 17
    assert (np.abs(numbers[nonzero]).max(1) == 448).all()
    error = np.linalg.norm(numbers * scales[:, None] - rows, axis=1)[nonzero] / np.linalg.norm(rows, axis=1)[nonzero]
    assert 0.01 < error.mean() < 0.03  # three bits of fraction
    alone, scale = quantize_rows(rows[40:41])
    np.testing.assert_array_equal(alone[0], numbers[40])
    assert scale[0] == scales[40]
