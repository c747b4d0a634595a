"""The name under which a folder is served."""

import os

import pytest

from bgert.serve.cores import Cores
from bgert.serve.models import load
from bgert.serve.settings import Settings


def name_of(folder):
    served = load(0, Settings(folders=(str(folder),), device="cpu"), Cores(1))
    served.model.close()
    return served.name


@pytest.mark.parametrize("given", ["{link}", "{link}/", "{link}/.", "~/{name}", "{name}", "inside"])
def test_a_folder_is_served_by_the_name_that_it_was_given(demo_folder, tmp_path, monkeypatch, given):
    link = tmp_path / "current-model"
    link.symlink_to(demo_folder, target_is_directory=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    if given == "inside":  # PWD is what a shell knows of a link; the system's own name is the target's
        real = tmp_path / "real-model"
        real.mkdir()
        for file in demo_folder.iterdir():
            os.link(file, real / file.name)
        monkeypatch.chdir(real)
        assert name_of(".") == "real-model"
        return
    assert name_of(given.format(link=link, name=link.name)) == "current-model"
