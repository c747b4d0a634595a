"""The table of networks that are not BERT's: the fastest exact peer is the bold one, and who failed is named."""

import families


def entry(speed, ratio=None, precision="fp32"):
    found = {"tokens_per_second": {"median": speed, "min": speed, "max": speed}}
    if ratio is not None:
        found["ratio"] = {"median": ratio, "min": ratio, "max": ratio}
    return {"precision": precision, "sets": {"mixed": found}, "quality": {"cosine_min": 1.0}}


def test_the_fastest_exact_peer_is_bold_and_who_failed_is_named():
    peers = {
        "bgert": entry(300.0),
        "sentence-transformers": entry(100.0, 3.0),
        "openvino-f32": entry(200.0, 1.5),
        "openvino-default": entry(400.0, 0.75, "bf16"),
        "torch-compile": {"error": "no compiler"},
    }
    facts = {"texts": 64, "tokens": 4_000, "median_tokens": 39, "longest": 400}
    result = {
        "machine": {"processor": "P", "cores": 2, "python": "3.11"},
        "date": "2026-01-01",
        "commit": "c",
        "models": {"all-mpnet-base-v2": {"sets": {"mixed": facts}, "peers": peers}},
    }
    lines = families.detail(result).splitlines()
    bold = [line for line in lines if "**1.50 x" in line]
    assert len(bold) == 1
    assert "OpenVINO by hand, f32" in bold[0]
    assert sum("**" in line for line in lines) == 2  # the title of the set, and that one
    assert any("no compiler" in line for line in lines)
    assert any("mixed" in line and "4,000" in line for line in lines)
