import warnings

import pytest

from bgert import InstructionWarning
from bgert.integrations import instructions
from bgert.integrations.instructions import warn_if_other_instruction

QUERY, DOCUMENT = "find the file: ", "text: "


@pytest.fixture(scope="module")
def prompted(write_model, sentence_transformers_files, tmp_path_factory):
    from bgert import Encoder
    from bgert_export import export

    folder = tmp_path_factory.mktemp("prompted")
    files = sentence_transformers_files(prompts={"query": QUERY, "document": DOCUMENT})
    export(write_model(folder / "checkpoint", files=files), folder / "model", verify=False)
    return Encoder(folder / "model")


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch):
    monkeypatch.setattr(instructions, "_told", set())


def adapter(*arguments):
    warn_if_other_instruction(*arguments)


@pytest.mark.parametrize(
    ("given", "prompt"), [("find the folder: ", "query"), ("", "query"), (QUERY, "document"), ("", "document")]
)
def test_another_instruction_warns_once_and_names_both(prompted, given, prompt):
    own = {"query": QUERY, "document": DOCUMENT}[prompt]
    with pytest.warns(InstructionWarning) as caught:
        adapter(prompted, given, prompt)
    (warning,) = caught
    assert warning.filename == __file__
    assert repr(given) in str(warning.message)
    assert repr(own) in str(warning.message)
    adapter(prompted, given, prompt)  # pytest makes errors of warnings
    with pytest.warns(InstructionWarning):
        adapter(prompted, given + "now ", prompt)


@pytest.mark.parametrize("given", [QUERY, QUERY.strip(), QUERY + "  "])
def test_the_same_tokens_are_the_same_instruction(prompted, given):
    adapter(prompted, given)


def test_a_model_without_one_says_so(encoder):
    adapter(encoder, "")
    adapter(encoder, "", "document")
    with pytest.warns(InstructionWarning, match="the model has no query instruction.*encode_queries"):
        adapter(encoder, "query: ")


def test_vectors_differ_only_where_it_warns(prompted):
    """What the warning says is true, and where there is none the bits are the same."""
    own = prompted.encode_queries("read a list")
    for given in (QUERY.strip(), QUERY, "find: ", ""):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            adapter(prompted, given)
        assert bool(caught) == bool((prompted.encode("read a list", prefix=given) != own).any())
