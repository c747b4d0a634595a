"""docs/clients.md, which the job of the real clients writes, says what that job runs."""

import contextlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/clients"))

import asking  # noqa: E402
import client_table  # noqa: E402

ROW = re.compile(r"^\| (\S+) \| (\S+) \| (.+) \| passed \|$")


def test_the_page_names_what_is_run():
    text = client_table.TABLE.read_text("utf-8")
    assert text.startswith(client_table.HEAD)
    rows = [ROW.match(line) for line in text.removeprefix(client_table.HEAD).splitlines()]
    assert all(rows)
    assert [row.groups() for row in rows] == client_table.expected()
    assert len(rows) > 60


def test_every_call_of_every_program_is_a_row():
    """A program's calls are read from its text: a decorator written otherwise would be no row."""
    programs = sorted(path.name for path in client_table.HERE.glob("with_*.py"))
    assert sorted({program for _, program in client_table.PROGRAMS}) == programs
    for program in programs:
        source = (client_table.HERE / program).read_text("utf-8")
        assert len(list(asking.names_in(source, "x"))) == len(re.findall(r"@call\b|call\(", source)), program


def test_every_client_is_pinned_and_run():
    for path in client_table.REQUIREMENTS:
        pins = client_table.pinned(path.stem)
        assert set(path.read_text("utf-8").split()) - {f"{name}=={pins[name]}" for name in pins} <= {"numpy>=1.24"}
    run = {(client, version) for client, version, _ in client_table.expected()}
    assert run == {pin for path in client_table.REQUIREMENTS for pin in client_table.pinned(path.stem).items()}


@pytest.mark.parametrize(
    ("given", "fault"),
    [([1.0, 2.0], None), ([1.0, 2.0000002], "is not"), ([1.0], "1"), ([1.0, 2.0, 3.0], "3")],
)
def test_a_vector_that_differs_in_a_bit_is_seen(given, fault, monkeypatch):
    monkeypatch.setattr(asking, "_given", {"truth": {"vectors": {"float32": {"a": [1.0, 2.0]}}}})
    expected = contextlib.nullcontext() if fault is None else pytest.raises(AssertionError, match=fault)
    with expected:
        asking.check_vectors([given], ["a"], length=2)
