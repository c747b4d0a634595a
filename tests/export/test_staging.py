"""Atomic writing of a folder."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bgert_export.staging
from bgert_export.errors import DestinationError, WriteError
from bgert_export.staging import Staging


def model(folder, content="old"):
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(content)
    return folder


def leftovers(parent):
    return sorted(path.name for path in parent.iterdir() if path.name.startswith("."))


def write(destination, *, force=False, content="new"):
    with Staging(destination, force=force) as staging:
        (staging.folder / "manifest.json").write_text(content)
        (staging.folder / "sub").mkdir()
        (staging.folder / "sub" / "weights").write_bytes(b"1" * 5000)
        assert not destination.exists() or force
        staging.commit()


def test_everything_or_nothing(tmp_path):
    destination = tmp_path / "parents" / "are" / "made"
    write(destination)
    assert (destination / "sub" / "weights").stat().st_size == 5000
    assert leftovers(destination.parent) == []

    def fail():
        with Staging(tmp_path / "other") as staging:
            (staging.folder / "half").write_text("made")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parents"]


def test_a_destination_that_exists_is_refused(tmp_path):
    destination = model(tmp_path / "model")
    with pytest.raises(DestinationError, match="exists: pass --force"):
        write(destination)
    assert (destination / "manifest.json").read_text() == "old"
    write(destination, force=True)
    assert (destination / "manifest.json").read_text() == "new"
    assert leftovers(tmp_path) == []


def test_force_replaces_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", force=True)
    assert (tmp_path / "empty" / "manifest.json").exists()


@pytest.mark.parametrize("kind", ["folder", "file", "link", "dangling link"])
def test_force_never_deletes_what_is_no_model_folder(tmp_path, kind):
    destination = tmp_path / "precious"
    if kind == "folder":
        destination.mkdir()
        (destination / "thesis.tex").write_text("...")
    elif kind == "file":
        destination.write_text("...")
    else:
        destination.symlink_to(model(tmp_path / "real") if kind == "link" else tmp_path / "nowhere")
    with pytest.raises(DestinationError, match="not even --force"):
        write(destination, force=True)
    assert os.path.lexists(destination)


def test_the_working_folders_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("relative"))
    assert (tmp_path / "relative" / "manifest.json").exists()


def test_only_one_at_a_time(tmp_path):
    destination = tmp_path / "model"
    with Staging(destination) as first:
        (first.folder / "manifest.json").write_text("first")
        with pytest.raises(DestinationError, match=rf"another export \(process {os.getpid()}\) is writing"):
            write(destination)
        assert (first.folder / "manifest.json").exists()
        first.commit()
    assert (destination / "manifest.json").read_text() == "first"
    with pytest.raises(DestinationError, match="exists"):
        write(destination)


def test_what_a_killed_export_left_is_removed(tmp_path):
    stale = tmp_path / ".model.bgert-export.tmp"
    stale.mkdir()
    (stale / "half").write_text("made")
    (tmp_path / ".model.bgert-export.lock").write_text("12345\n")
    write(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["manifest.json", "sub"]
    assert leftovers(tmp_path) == []


def test_killed_between_the_two_renames(tmp_path):
    """The old folder was moved away and the new one is not there yet: the old one comes back."""
    model(tmp_path / ".model.bgert-export.old")
    with pytest.raises(DestinationError, match="exists"):
        write(tmp_path / "model")
    assert (tmp_path / "model" / "manifest.json").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_killed_after_the_second_rename(tmp_path):
    model(tmp_path / ".model.bgert-export.old")
    model(tmp_path / "model", "new")
    write(tmp_path / "model", force=True, content="newest")
    assert (tmp_path / "model" / "manifest.json").read_text() == "newest"
    assert leftovers(tmp_path) == []


def test_a_rename_that_fails_restores_the_old_folder(tmp_path, monkeypatch):
    destination = model(tmp_path / "model")
    rename = Path.rename

    def failing(self, target):
        if self.name.endswith(".tmp"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(bgert_export.staging, "_exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space left"):
        write(destination, force=True)
    assert (destination / "manifest.json").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_system_that_cannot_exchange_names(tmp_path, monkeypatch):
    destination = model(tmp_path / "model")
    monkeypatch.setattr(bgert_export.staging, "_exchange", lambda one, other: False)
    write(destination, force=True)
    assert (destination / "manifest.json").read_text() == "new"
    assert leftovers(tmp_path) == []
    monkeypatch.undo()
    assert not bgert_export.staging._exchange(tmp_path / "none", destination)
    assert (destination / "manifest.json").read_text() == "new"


REPLACE = """
import sys
from bgert_export.staging import Staging
for number in range(10**6):
    with Staging(sys.argv[1], force=True) as staging:
        (staging.folder / "manifest.json").write_text(str(number))
        staging.commit()
    print(number, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="names are exchanged on Linux")
def test_there_is_a_model_at_every_moment(tmp_path):
    """While one process replaces a model again and again, a reader never misses it; SIGKILL leaves it too."""
    manifest = model(tmp_path / "model") / "manifest.json"
    reads = 0
    with subprocess.Popen([sys.executable, "-c", REPLACE, str(tmp_path / "model")], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert (tmp_path / "model").is_dir()
            reads += 1
        process.kill()
    assert reads > 100
    assert manifest.read_text()
    write(tmp_path / "model", force=True)
    assert manifest.read_text() == "new"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_a_disk_that_is_full_when_the_lock_is_taken(tmp_path, monkeypatch, call):
    """The lock is given back: the next export of this process finds it free."""

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(os, call, fail)
    for _ in range(3):
        with pytest.raises(WriteError, match="No space left"):
            write(tmp_path / "model")
    monkeypatch.undo()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before  # others may be closed meanwhile
    write(tmp_path / "model")
    assert (tmp_path / "model" / "manifest.json").exists()
    assert leftovers(tmp_path) == []


def test_a_parent_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        write(tmp_path / "file" / "model")
    with pytest.raises(WriteError, match=r"cannot write /proc/model"):
        write(Path("/proc/model"))
