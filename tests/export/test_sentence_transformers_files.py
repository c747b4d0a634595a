"""Reading of sentence-transformers' files, old and new style."""

import json

import pytest

from bgert.errors import BgertError
from bgert_export import export
from bgert_export.errors import CheckpointError, UnsupportedCheckpointError
from bgert_export.sentence_transformers_files import SentenceTransformersFiles


@pytest.fixture
def read(tmp_path, sentence_transformers_files):
    """Writes files, with changes by name (None removes one), and reads them."""

    def reader(changes=None, *, lowercase=True, **arguments):
        for name, value in (sentence_transformers_files(**arguments) | (changes or {})).items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True, parents=True)
            if value is None:
                path.unlink(missing_ok=True)
            else:
                path.write_text(value if isinstance(value, str) else json.dumps(value))
        return SentenceTransformersFiles.read(tmp_path, hidden_size=64, lowercase=lowercase)

    return reader


def test_no_modules(tmp_path):
    assert SentenceTransformersFiles.read(tmp_path, hidden_size=64, lowercase=None) is None


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("normalize", [True, False])
def test_old_style(read, pooling, normalize):
    found = read(pooling=pooling, normalize=normalize, max_seq_length=48)
    assert (found.pooling, found.normalize, found.max_seq_length) == (pooling, normalize, 48)
    assert (found.pooling_file, found.length_file) == ("1_Pooling/config.json", "sentence_bert_config.json")


def test_new_style(read):
    types = ("base.modules.transformer.Transformer", "sentence_transformer.modules.pooling.Pooling",
             "base.modules.normalize.Normalize")  # fmt: skip
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.{name}"}
        for number, (path, name) in enumerate(zip(("", "1_P", "2_N"), types, strict=True))
    ]
    transformer = {
        "transformer_task": "feature-extraction",
        "module_output_name": "token_embeddings",
        "modality_config": {"text": {"method": "forward"}},
    }
    found = read(
        {
            "modules.json": modules,
            "1_P/config.json": {"embedding_dimension": 64, "pooling_mode": "cls", "include_prompt": True},
            "sentence_bert_config.json": transformer,
        }
    )
    assert (found.pooling, found.normalize, found.max_seq_length) == ("cls", True, None)


def test_what_this_machines_sentence_transformers_writes(tmp_path, make_checkpoint, sentence_transformers_files):
    from sentence_transformers import SentenceTransformer

    source = make_checkpoint(files=sentence_transformers_files("cls", prompts={"query": "q: "}, max_seq_length=40))
    SentenceTransformer(str(source), device="cpu").save(str(tmp_path / "saved"), create_model_card=False)
    found = SentenceTransformersFiles.read(tmp_path / "saved", hidden_size=64, lowercase=True)
    assert (found.pooling, found.normalize, found.prompts) == ("cls", True, {"query": "q: ", "document": ""})


def test_pooling_without_any_flag_is_mean(read):
    assert read({"1_Pooling/config.json": {"word_embedding_dimension": 64}}).pooling == "mean"


@pytest.mark.parametrize(
    ("prompts", "default", "expected", "expected_default"),
    [
        ({"query": "q: ", "passage": "p: "}, None, {"query": "q: ", "passage": "p: "}, None),
        ({"query": "q: ", "corpus": "c: "}, "corpus", {"query": "q: ", "corpus": "c: "}, "corpus"),
        ({"query": "", "document": ""}, None, {"query": "", "document": ""}, None),
        ({"query": "", "STS": "s: "}, "query", {"query": "", "STS": "s: "}, "query"),
        ({"query": None, "other": "o"}, None, {"query": "", "other": "o"}, None),
        ({"other": "o"}, "document", {"other": "o"}, "document"),
    ],
)
def test_prompts(read, prompts, default, expected, expected_default):
    found = read(prompts=prompts, default=default)
    assert (found.prompts, found.default_prompt) == (expected, expected_default)


def modules(*names, path=""):
    return [
        {"path": path if not n else f"{n}_{name}", "type": f"sentence_transformers.models.{name}"}
        for n, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modules.json": modules("Transformer", "Pooling", "LSTM")}, "module LSTM is not supported"),
        ({"modules.json": modules("Transformer", "Pooling", "Normalize", "LayerNorm")}, "module LayerNorm"),
        ({"modules.json": modules("Transformer", "Normalize", "Pooling")}, "not supported in this order"),
        ({"modules.json": modules("Transformer")}, "not supported in this order"),
        ({"modules.json": [{"type": "custom.Module", "path": ""}]}, r"custom\.Module"),
        ({"1_Pooling/config.json": {"pooling_mode": "median"}}, r"pooling \['median'\]"),
        ({"1_Pooling/config.json": {"pooling_mode": ["cls", 3]}}, "pooling"),
        ({"1_Pooling/config.json": {"pooling_mode": 7}}, "pooling"),
        ({"sentence_bert_config.json": {"transformer_task": "fill-mask"}}, "transformer_task 'fill-mask'"),
        (
            {"sentence_bert_config.json": {"modality_config": {"text": {"method_output_name": "pooler_output"}}}},
            "pooler_output",
        ),
        ({"sentence_bert_config.json": {"modality_config": {"message": {"method": "forward"}}}}, "message"),
        ({"config_sentence_transformers.json": {"truncate_dim": 32}}, "pass dimensions= to encode"),
        ({"config_sentence_transformers.json": {"model_type": "AudioEncoder"}}, "model_type 'AudioEncoder'"),
        ({"sentence_bert_config.json": {"tokenizer_args": {"use_fast": False}}}, "tokenizer_args"),
        (
            {
                "1_Pooling/config.json": {"pooling_mode": "cls", "include_prompt": False},
                "config_sentence_transformers.json": {"prompts": {"query": "q"}},
            },
            "include_prompt false",
        ),
    ],
)
def test_unsupported(read, changes, message):
    with pytest.raises(UnsupportedCheckpointError, match=message):
        read(changes)


def test_lowercasing_asked_for_here_alone(read):
    changes = {"sentence_bert_config.json": {"max_seq_length": 5, "do_lower_case": True}}
    assert read(changes, lowercase=True).max_seq_length == 5
    for lowercase in (False, None):
        with pytest.raises(UnsupportedCheckpointError, match="do_lower_case"):
            read(changes, lowercase=lowercase)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({"pooling_mode": ["weightedmean", "cls"]}, "weightedmean+cls"),
        ({"pooling_mode_mean_sqrt_len_tokens": True, "pooling_mode_cls_token": True}, "cls+mean_sqrt_len_tokens"),
    ],
)
def test_other_poolings(read, config, pooling):
    assert read({"1_Pooling/config.json": config}).pooling == pooling


def test_prompts_outside_pooling_matter_only_with_prompts(read):
    assert read({"1_Pooling/config.json": {"pooling_mode": "cls", "include_prompt": False}}).pooling == "cls"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modules.json": "{"}, r"modules\.json is not valid JSON"),
        ({"modules.json": {"a": 1}}, "not a list of modules"),
        ({"modules.json": [{"path": ""}]}, "not a list of modules"),
        ({"modules.json": [*modules("Transformer"), {"type": "sentence_transformers.models.Pooling", "path": "../p"}]},
         "refused"),
        ({"1_Pooling/config.json": None}, "has no 1_Pooling/config.json"),
        ({"1_Pooling/config.json": "[]"}, "does not hold an object"),
        ({"1_Pooling/config.json": "{"}, "not valid JSON"),
        ({"1_Pooling/config.json": {"word_embedding_dimension": 32}}, "embedding dimension 32"),
        ({"sentence_bert_config.json": {"max_seq_length": 0}}, "max_seq_length is 0"),
        ({"sentence_bert_config.json": {"max_seq_length": "64"}}, "max_seq_length is '64'"),
        ({"config_sentence_transformers.json": {"prompts": ["q"]}}, "prompts"),
        ({"config_sentence_transformers.json": {"prompts": {"q": 1}}}, "prompts"),
        ({"config_sentence_transformers.json": {"prompts": {"q": "q"}, "default_prompt_name": "x"}}, "'x' is none"),
    ],
)  # fmt: skip
def test_damaged(read, changes, message):
    with pytest.raises(CheckpointError, match=message):
        read(changes)


@pytest.mark.parametrize("prompts", [{"query": "\ud800"}, {"a\udfff": "text"}])
def test_a_prompt_that_is_no_text_is_an_error_of_one_line(make_checkpoint, sentence_transformers_files, prompts):
    """JSON can say a lone surrogate; no file of UTF-8, and no input of a model, can hold it."""
    checkpoint = make_checkpoint(files=sentence_transformers_files(prompts=prompts))
    with pytest.raises(BgertError, match="lone surrogate"):
        export(checkpoint, checkpoint.parent / "model", verify=False)
    assert not (checkpoint.parent / "model").exists()


def test_a_prompt_of_the_command_line_that_is_no_text(make_checkpoint, sentence_transformers_files):
    checkpoint = make_checkpoint(files=sentence_transformers_files())
    with pytest.raises(BgertError, match="lone surrogate"):
        export(checkpoint, checkpoint.parent / "model", verify=False, query_prompt="\udcff: ")
