"""Names of the graphs that export can write."""

import pytest

from bgert import InvalidOptionError
from bgert.commands.main import main
from bgert_export.targets import check_targets


def test_each_name_once():
    assert check_targets(["cpu", "cpu"]) == ["cpu"]


def test_fp32_comes_first_whatever_the_order_so_that_auto_takes_it():
    assert check_targets(["cpu-int8", "cpu-bf16", "cpu"]) == ["cpu", "cpu-bf16", "cpu-int8"]


@pytest.mark.parametrize("names", [["cpu", "tpu"], [""], []])
def test_unknown_or_none(names):
    with pytest.raises(InvalidOptionError, match="use cpu"):
        check_targets(names)


def test_export_refuses_before_it_reads_anything(tmp_path):
    from bgert_export import export

    with pytest.raises(InvalidOptionError, match="unknown target 'tpu'"):
        export(tmp_path / "absent", tmp_path / "out", targets=["tpu"], verify=False)


def test_targets_with_commas_on_the_command_line(tmp_path, capsys):
    argv = ["export", str(tmp_path / "absent"), "-o", str(tmp_path / "out"), "--target", "cpu, tpu", "--target", "cuda"]
    assert main(argv) == 2
    assert "unknown target 'tpu'" in capsys.readouterr().err
    assert main([*argv[:5], "cpu,cuda", "--target", "cpu-bf16", "--no-verify"]) == 2
    assert "no such checkpoint folder" in capsys.readouterr().err
