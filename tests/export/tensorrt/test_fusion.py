"""Which layers count as fused attention: names as TensorRT for RTX 1.7 writes them."""

import json

import pytest

from bgert.errors import EngineError
from bgert_export.tensorrt.fusion import fused_in_list, fused_in_report

# From a build of three profiles (1 to 64 x 32, 16 x 128 and 4 x 512), shortened.
NAMES = [
    "__mye20406_0_myl0_0",
    "__myl_GathCastGathCastAddMeanSubMulMeanAddSqrtDivMulMulAddCast_myl0_1",
    "_gemm_mha_v2_myl0_7",
    "_gemm_mha_v2_myl0_17",
    "_gemv_mha_v1_myl0_27",
    "encoder.layer.0.attention.self.value [profile 1]_U20+encoder.layer.0.x_myl1_2",
    "_gemm_mha_v2_myl1_7",
    "_gemm_mha_v2_myl1_17",
    "encoder.layer.0.attention.self.value [profile 2]_U20+encoder.layer.0.x_myl2_2",
    "_gemm_mha_v2_myl2_7",
]


def listed(names):
    rows = [f"Name: {name}, LayerType: kgen, Inputs: [ {{ Name: _gemm_mha, Dimensions: [-1,32] }}]" for name in names]
    return "\n".join(["Layers:", *rows])


def test_profiles_are_told_apart_in_the_list():
    assert fused_in_list(listed(NAMES), 3) == [2, 2, 1]
    assert fused_in_list(listed(NAMES), 4) == [2, 2, 1, 0]


def test_no_list_is_no_answer():
    for text in ("", "Layers:", "Layers:\nsomething else"):
        with pytest.raises(EngineError, match="fusion cannot be told"):
            fused_in_list(text, 1)


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (NAMES, [2, 2, 1]),
        (["_gemm_mha_v2_myl0_7", "x_myl1_3"], [1, 0]),  # nothing of profile 1 is fused
        (["_gemm_mha_v2_0", "gemm"], [1, 1]),  # names that tell nothing of profiles
        ([], [0, 0]),
    ],
)
def test_profiles_in_the_inspectors_report(names, counts):
    for layers in (names, [{"Name": name} for name in names]):
        report = json.dumps({"Layers": layers})
        assert [fused_in_report(report, number) for number in range(len(counts))] == counts


def test_an_inspector_that_says_something_else():
    with pytest.raises(EngineError, match="inspector"):
        fused_in_report("{}", 0)
