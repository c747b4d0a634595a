"""`bgert bench-serve` on a real server."""

import json

import pytest

from bgert.commands.main import main

pytest.importorskip("httptools", reason="the extra `serve` is not installed")
pytest.importorskip("msgspec", reason="the extra `serve` is not installed")


def test_a_short_run(demo_folder, capsys):
    assert main(["bench-serve", str(demo_folder), "--load", "0.5", "--seconds", "0.5", "--texts", "2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["capacity"]["statuses"].keys() == {"200"}
    (load,) = result["loads"]
    assert set(load["statuses"]) <= {"200"}
    assert load["resident_bytes"]["max"] > 20e6


@pytest.mark.parametrize("options", [["--load", "a"], ["--load", "0"], ["--seconds", "0"], ["--texts", "0"]])
def test_options_that_make_no_sense(options, capsys):
    assert main(["bench-serve", "folder", *options]) == 2
    assert options[0] in capsys.readouterr().err
