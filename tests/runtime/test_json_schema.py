"""The validator beside the jsonschema package."""

import copy
import json
import os
import random
from pathlib import Path

import pytest

import bgert.model_folder
from bgert.errors import ModelFolderError
from bgert.json_schema import SchemaError, check, decode
from bgert.model_folder import Manifest

SCHEMA = json.loads(Path(bgert.model_folder.__file__).with_name("manifest.schema.json").read_text())
VALUES = [
    None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, 10**400, 1.0, 1.5, 1e300, -0.0, "", "x", "1", "cpu", "encoder",
    "reranker", "../x", "/etc/passwd", "a\n", "a\0", "é", "0" * 64, "0" * 64 + "\n", "x" * 10_000, [], [None], [0],
    ["x"], [[]], [{}], {}, {"x": None}, {"name": "x"}, {"": 1}, [["x"] * 50] * 50,
]  # fmt: skip


def places(value, path=()):
    """Every place of a document, as keys and indices."""
    yield path
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(below, (*path, key))


def put(document, path, value):
    """A copy with another value in one place."""
    if not path:
        return value
    document = copy.deepcopy(document)
    *above, last = path
    place = document
    for key in above:
        place = place[key]
    place[last] = value
    return document


def without(document, path):
    document = copy.deepcopy(document)
    place = document
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]
    return document


def mutations(document):
    """Each value in each place, each place gone, and something more in each object."""
    for path in places(document):
        for value in VALUES:
            yield put(document, path, value)
        if path:
            yield without(document, path)
            place = document
            for key in path:
                place = place[key]
            if isinstance(place, dict):
                yield put(document, (*path, "unknown"), 1)
            if isinstance(place, list):
                yield put(document, path, place * 2)


@pytest.fixture(scope="module")
def document(demo_folder):
    raw = json.loads((demo_folder / "manifest.json").read_text())
    raw["graphs"][0]["parity"] = {
        "reference": "torch", "corpus": "texts", "count": 3, "max_abs_error": 1e-6, "min_cosine": 0.9,
        "mean_cosine": 1.0, "rank_agreement": None, "engine": "",
    }  # fmt: skip
    raw["graphs"][0]["floor"] = 0.5
    raw["prompts"] = {"query": "q: "}
    return raw


def test_one_change_anywhere(document, validator):
    """Both say the same of every mutation, and Manifest.read takes none that the schema refuses."""
    counts = [0, 0]
    for mutated in mutations(document):
        counts[agree(mutated, validator)] += 1
    assert min(counts) > 300, counts


def test_several_changes(document, validator, tmp_path):
    seed = int(os.environ.get("BGERT_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print("seed", seed)
    draw = random.Random(seed)
    counts = [0, 0]
    for _ in range(500):
        mutated = document
        for _ in range(draw.randint(1, 3)):
            path = draw.choice([path for path in places(mutated) if path])
            change = draw.random()
            mutated = without(mutated, path) if change < 0.2 else put(mutated, path, draw.choice(VALUES))
        fits = agree(mutated, validator)
        counts[fits] += 1
        (tmp_path / "manifest.json").write_text(json.dumps(mutated))
        if not fits:
            with pytest.raises(ModelFolderError):
                Manifest.read(tmp_path)
    assert min(counts) > 20, counts


@pytest.fixture(scope="module")
def validator():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


def agree(mutated, validator):
    message = ""
    try:
        check(mutated, SCHEMA)
    except SchemaError as error:
        message = str(error)
    fits = not message
    assert len(message) < 1000
    assert fits == validator.is_valid(mutated), mutated
    return fits


def test_every_number_has_bounds():
    """So that none of them is too large for whoever computes with it."""

    def integers(schema, name):
        if isinstance(schema, dict):
            kinds = schema.get("type", ())
            if "integer" in ([kinds] if isinstance(kinds, str) else kinds):
                yield name, schema
            for key, below in schema.items():
                yield from integers(below, key)
        elif isinstance(schema, list):
            for below in schema:
                yield from integers(below, name)

    found = list(integers({**SCHEMA, "anyOf": []}, ""))
    assert len(found) >= 8
    for name, one in found:
        assert {"minimum", "maximum"} <= one.keys(), name
        assert one["maximum"] < 2**53


def test_a_keyword_that_is_not_implemented_is_not_skipped():
    with pytest.raises(NotImplementedError, match="uniqueItems"):
        check([1, 1], {"uniqueItems": True})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 10**6,
        b"NaN",
        b"[1e999]",
        b"1" + b"0" * 400,
        b"[-9223372036854775809]",
        b'"\\udfff"',
        b'{"\\udfff": 1}',
        b"[" * 101 + b"]" * 101,
    ],
)
def test_what_is_no_json(text):
    with pytest.raises(ValueError, match=r"."):
        decode(text)


def test_levels_that_are_read():
    assert decode(b"[" * 100 + b"]" * 100)
