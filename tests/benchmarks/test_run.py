"""The command, quick: bgert beside sentence-transformers from this environment."""

import pytest

import results
import run
import tables
from plots import plots


@pytest.mark.slow
def test_quick_mode_measures_and_can_be_reported(demo_checkpoint, tmp_path, capsys):
    output = tmp_path / "r.json"
    assert run.main(["--quick", "--folder", str(tmp_path / "work"), "--output", str(output)]) == 0
    result = results.read(output)
    peers = result["models"]["minilm"]["peers"]
    assert [name for name, entry in peers.items() if "error" in entry] == []
    assert set(peers) == {"bgert", "sentence-transformers"}
    for entry in peers.values():
        assert entry["quality"]["cosine_min"] > 0.999999
        assert entry["idle_cpu"] < 0.2
        assert len(entry["sets"]["mixed"]["seconds"]) == 2
    assert result["models"]["minilm"]["gemm"]["u8s8"]["layer"]["median"] > 0
    assert "sentence-transformers, torch" in tables.readme(result)
    assert plots(result)


def test_unknown_names_are_refused(capsys):
    for arguments in (["--models", "x"], ["--peers", "x"], ["--sets", "x"], ["--rounds", "0"]):
        with pytest.raises(SystemExit):
            run.main(arguments)
        capsys.readouterr()
