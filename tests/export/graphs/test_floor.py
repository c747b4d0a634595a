"""How many whole graphs the search for a floor writes and checks, and what it settles on."""

import numpy as np
import pytest

from bgert_export.errors import QuantizationError
from bgert_export.graphs.floor import CHECKS, Floor, Settled
from bgert_export.graphs.quality import Quality


def settled(loss, kept):
    quality = Quality(1 - loss, 1 - 2 * loss, 10)
    return Settled("mean cosine", kept, quality, quality)


def searched(count, least, power, seed):
    """What is settled on, and the checks, where true losses are not quite what was measured of each alone."""
    print("seed", seed)
    floor = object.__new__(Floor)
    vars(floor).update(_least=least, _precision="int8", _higher="fp32", _advice="Lower the floor.")
    draw = np.random.default_rng(seed)
    alone = np.sort(draw.lognormal(0, 1, count))[::-1] * (5e-3 / count)
    true = dict(zip((f"m{i}" for i in range(count)), alone * draw.lognormal(0, 0.5, count), strict=True))
    whole, checks = 5e-3, []
    total = sum(true.values())

    def measured(kept):
        checks.append(len(kept))
        return settled(whole * ((total - sum(true[name] for name in kept)) / total) ** power, kept)

    losses = {(name,): float(loss) for name, loss in zip(true, alone, strict=True)}
    order = list(losses)[: count // 2]
    return floor.reach(settled(whole, []), losses, order, float(sum(alone)), measured), checks, order


@pytest.mark.parametrize("power", [0.5, 1, 2])
@pytest.mark.parametrize("count", [6, 60, 600, 6000])
def test_checks_do_not_grow_with_the_number_of_matrices(count, power):
    for seed in range(5):
        best, checks, order = searched(count, 0.9965, power, seed)
        assert best.lower >= 0.9965
        assert len(checks) <= CHECKS
        assert checks == sorted(set(checks))
        if power == 1 and count >= 60:
            assert len(best.kept) < len(order) / 2  # and not simply all that may


@pytest.mark.parametrize("count", [6, 6000])
def test_what_cannot_be_reached_is_found_out_as_soon(count):
    with pytest.raises(QuantizationError, match=r"reaches a mean cosine 0\.99\d+.*below the floor of 0.99999"):
        searched(count, 0.99999, 0.5, 1)


def test_what_lies_flat_till_the_end_gets_all_that_may_go_back():
    best, checks, order = searched(6000, 0.9957, 0.2, 2)
    assert best.lower >= 0.9957
    assert len(checks) <= CHECKS
    assert checks[-1] <= len(order)
