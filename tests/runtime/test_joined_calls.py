import asyncio

import numpy as np
import pytest

from bgert import Encoder, InvalidTextError, TruncationWarning


@pytest.fixture
def encoder(demo_folder):
    with Encoder(demo_folder, device="cpu") as opened:
        yield opened


def counted(encoder, monkeypatch):
    sizes = []
    embed = encoder._embed

    def counting(items, *rest):
        sizes.append(len(items))
        return embed(items, *rest)

    monkeypatch.setattr(encoder, "_embed", counting)
    return sizes


def test_calls_that_wait_together_are_one_batch_with_the_bits_of_calls_alone(encoder, monkeypatch):
    sizes = counted(encoder, monkeypatch)

    async def main():
        return await asyncio.gather(*(encoder.aencode(f"text {i} " * (i + 1)) for i in range(8)), encoder.aencode([]))

    results = asyncio.run(main())
    assert sizes == [8]
    monkeypatch.undo()
    for i, result in enumerate(results[:8]):
        alone = encoder.encode(f"text {i} " * (i + 1))
        assert np.array_equal(result, alone)
        assert result.info.tokens == alone.info.tokens
    assert results[8].shape == (0, encoder.dimensions)


def test_an_error_is_its_callers_alone_and_a_cut_warns_its_caller(encoder):
    async def main():
        calls = (encoder.aencode("good"), encoder.aencode(["\ud800"]), encoder.aencode("a " * 5000))
        return await asyncio.gather(*calls, return_exceptions=True)

    with pytest.warns(TruncationWarning, match="the only input"):
        good, bad, cut = asyncio.run(main())
    assert np.array_equal(good, encoder.encode("good"))
    assert isinstance(bad, InvalidTextError)
    assert str(bad).startswith("texts[0]")
    assert cut.info.n_truncated == 1
    assert good.info.n_truncated == 0


def test_a_call_that_is_cancelled_leaves_the_others_and_does_not_run(encoder, monkeypatch):
    sizes = counted(encoder, monkeypatch)

    async def main():
        gone, kept = (asyncio.ensure_future(encoder.aencode(text)) for text in ("gone", "kept"))
        asyncio.get_running_loop().call_soon(gone.cancel)
        result = await kept
        with pytest.raises(asyncio.CancelledError):
            await gone
        return result, await encoder.aencode("later")

    kept, later = asyncio.run(main())
    monkeypatch.undo()
    assert np.array_equal(kept, encoder.encode("kept"))
    assert np.array_equal(later, encoder.encode("later"))
    assert sum(sizes) in (2, 3)


def test_other_options_are_another_batch(encoder, monkeypatch):
    sizes = counted(encoder, monkeypatch)

    async def main():
        return await asyncio.gather(encoder.aencode("a"), encoder.aencode("a", dtype="float16"), encoder.aencode("b"))

    assert [result.dtype for result in asyncio.run(main())] == [np.float32, np.float16, np.float32]
    assert sizes == [2, 1]
