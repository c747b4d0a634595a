"""The cache of engines: where it is, whom it trusts, and what it takes for an engine."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bgert.backends.tensorrt.engine_cache import EngineCache
from bgert.backends.tensorrt.recipe import Environment, Profile, Recipe, graph_digest
from bgert.errors import EngineError, EngineNotBuiltError, IntegrityError
from bgert.model_folder import FileEntry, GraphEntry

HERE = Environment("tensorrt", "10.16.1.11", "NVIDIA L4", "8.9", 58, 13000)
RECIPE = Recipe("a" * 64, "fp16", HERE, [Profile(32, 8), Profile(64, 4)], None, 3)


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines")


def store(cache, recipe=RECIPE, plan=b"plan"):
    return cache.store(recipe, plan, seconds=1.0, fused_attention=[1, 1], notes=["slow"])


def test_what_is_stored_is_found(cache):
    record = store(cache)
    assert cache.lookup(RECIPE) == cache.find(RECIPE.graph, "fp16", HERE) == record
    assert cache.load(record) == b"plan"
    with pytest.raises(EngineNotBuiltError, match="bgert build"):
        cache.find(RECIPE.graph, "bf16", HERE)
    with pytest.raises(EngineNotBuiltError, match="there is no TensorRT engine"):
        cache.find("b" * 64, "fp16", HERE)


def test_the_newest_of_several_is_taken(cache):
    first, second = store(cache), store(cache, replace(RECIPE, level=5))
    folder = cache.root / RECIPE.graph[:32]
    os.utime(folder / f"{first.recipe.key()}.json", (1, 1))
    assert cache.find(RECIPE.graph, "fp16", HERE) == second
    os.utime(folder / f"{second.recipe.key()}.json", (0, 0))
    assert cache.find(RECIPE.graph, "fp16", HERE) == first


def test_storing_again_leaves_one_plan(cache):
    store(cache)
    record = store(cache, plan=b"another plan")
    assert [path.name for path in cache.root.rglob("*.plan")] == [record.plan]
    assert cache.load(record) == b"another plan"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"BGERT_CACHE": "/a"}, "/a/engines"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/bgert/engines"),
        ({"HOME": "/c"}, "/c/.cache/bgert/engines"),
        ({"BGERT_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/bgert/engines"),
    ],
)
def test_where_it_is(monkeypatch, variables, expected):
    for name in ("BGERT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert EngineCache().root == Path(expected)


def test_a_link_in_place_of_the_folder_is_refused(cache, tmp_path):
    store(cache)
    cache.root.rename(tmp_path / "elsewhere")
    cache.root.symlink_to(tmp_path / "elsewhere")
    for use in (lambda: store(cache), lambda: cache.lookup(RECIPE), lambda: cache.find(RECIPE.graph, "fp16", HERE)):
        with pytest.raises(IntegrityError, match="mode 0700"):
            use()


@pytest.mark.parametrize(
    "change",
    [
        {"plan": "../../elsewhere.plan"},
        {"size": "4"},
        {"recipe": None},
        {"recipe": {"format": 1}},
        {"recipe": {"level": 4}},
        {"surprise": 1},
    ],
)
def test_a_record_that_is_none(cache, change):
    """Wrong types, a place outside the folder, another format, contents that are not those of the name."""
    store(cache)
    (path,) = cache.root.rglob("*.json")
    raw = json.loads(path.read_text())
    for name, value in change.items():
        raw[name] = raw[name] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(raw))
    with pytest.raises(IntegrityError):
        cache.lookup(RECIPE)
    with pytest.raises((EngineNotBuiltError, IntegrityError)):
        cache.load(cache.find(RECIPE.graph, "fp16", HERE))


def test_a_full_disk_leaves_what_was_there(cache, monkeypatch):
    record = store(cache)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EngineError, match="No space left"):
        store(cache, plan=b"another")
    assert cache.load(cache.find(RECIPE.graph, "fp16", HERE)) == b"plan"
    assert cache.lookup(RECIPE) == record
    assert not list(cache.root.rglob(".writing-*"))


def test_graph_digest_is_over_all_files():
    def entry(*digests):
        files = [FileEntry(f"{number}", 1, digest) for number, digest in enumerate(digests)]
        return GraphEntry("tensorrt", "fp16", files, [], "", {}, 9, "", None)

    digests = {graph_digest(entry(*some)) for some in (["a"], ["a", "b"], ["a", "c"], ["b", "a"])}
    assert len(digests) == 4
