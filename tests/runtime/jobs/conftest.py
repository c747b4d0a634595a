"""A tiny model, and the command on it."""

import random

import pytest

from bgert.commands.main import main
from bgert_export import export


@pytest.fixture(scope="session")
def model(write_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    export(write_model(folder / "checkpoint"), folder / "model", verify=False, pooling="mean", normalize=True)
    return folder / "model"


@pytest.fixture(scope="session")
def tiny(model):
    from bgert import Encoder

    return Encoder(model)


@pytest.fixture
def encode(model):
    """`bgert encode` as a function of its options; returns the exit status."""
    return lambda *options: main(["encode", str(model), "--threads", "1", "--input", *map(str, options)])


@pytest.fixture(scope="session")
def sentences():
    """n texts of unlike lengths."""

    def make(count, seed=0):
        draw = random.Random(seed)
        words = [
            "the",
            "a",
            "of",
            "file",
            "folder",
            "copy",
            "text",
            "model",
            "day",
            "query",
            "value",
            "list",
            "string",
            "北京",
            "今天",
            "x",
            "y",
            "z",
        ]
        return [" ".join(draw.choices(words, k=draw.randrange(30))) for _ in range(count)]

    return make
