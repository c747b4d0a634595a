"""Reading, merging and resuming of results."""

import pytest

import results

MACHINE = {"processor": "P", "cores": 2}


@pytest.fixture
def result():
    return results.begin("2026-01-01", "abc", MACHINE)


def test_a_group_joins_and_what_was_measured_stays(result):
    results.merge_group(result, "m", {"layers": 1}, {"gemm": {"fp32": 1}, "peers": {"bgert": {"n": 1}, "x": {"n": 2}}})
    later = {"gemm": {"fp32": 9}, "peers": {"bgert": {"n": 9}, "y": {"n": 3}}}
    results.merge_group(result, "m", {"layers": 1}, later)
    model = result["models"]["m"]
    assert model["peers"] == {"bgert": {"n": 1}, "x": {"n": 2}, "y": {"n": 3}}
    assert model["gemm"] == {"fp32": 1}


def test_what_failed_is_tried_again(result):
    results.merge_group(result, "m", {}, {"gemm": {}, "peers": {"bgert": {"n": 1}, "x": {"error": "no"}}})
    assert results.missing_peers(result, "m", ["bgert", "x", "y"]) == ["x", "y"]
    results.merge_group(result, "m", {}, {"gemm": {}, "peers": {"x": {"n": 2}}})
    assert results.missing_peers(result, "m", ["bgert", "x"]) == []


def test_resuming_needs_the_same_commit_and_machine(result, tmp_path):
    path = tmp_path / "r.json"
    results.write(result, path)
    assert results.resumed(path, "abc", MACHINE) == result
    with pytest.raises(ValueError, match="commit abc"):
        results.resumed(path, "other", MACHINE)
    with pytest.raises(ValueError, match="another machine"):
        results.resumed(path, "abc", MACHINE | {"cores": 4})


def test_results_of_another_schema_are_refused(tmp_path):
    (tmp_path / "r.json").write_text('{"schema": 1}')
    with pytest.raises(ValueError, match="schema 1"):
        results.read(tmp_path / "r.json")


def test_writing_leaves_no_half_file(result, tmp_path):
    results.write(result, tmp_path / "new" / "r.json")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["r.json"]
