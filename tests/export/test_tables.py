"""Tokenizers beside networks that have no rows for what they give, against transformers."""

import json

import numpy as np
import pytest

from bgert_export import export
from bgert_export.architecture import Architecture
from bgert_export.errors import CheckpointError
from bgert_export.tables import check_tables

RERANKER = {"architectures": ["BertForSequenceClassification"], "num_labels": 1}


def template(around, types=(0, 0, 0), ids=(2, 3)):
    """A post-processor that puts something around texts or not, with the types of first, second and end."""
    first, second, end = types
    special = [{"SpecialToken": {"id": str(index), "type_id": end}} for index in ids] if around else []
    one, two = ({"Sequence": {"id": name, "type_id": kind}} for name, kind in (("A", first), ("B", second)))
    return {
        "type": "TemplateProcessing",
        "single": [*special[:1], one, *special[1:]],
        "pair": [*special[:1], one, *special[1:], two, *special[1:]],
        "special_tokens": {str(index): {"id": str(index), "ids": [index], "tokens": ["[SEP]"]} for index in ids},
    }


@pytest.fixture
def make(make_checkpoint, make_config):
    """A checkpoint with a tokenizer.json that tokenizers runs as it is."""

    def made(post_processor, **changes):
        config = make_config(**changes)
        folder = make_checkpoint(config=config)
        vocab = {token: index for index, token in enumerate((folder / "vocab.txt").read_text("utf-8").splitlines())}
        body = {
            "version": "1.0", "added_tokens": [], "normalizer": {"type": "BertNormalizer", "lowercase": True,
            "clean_text": True, "handle_chinese_chars": True, "strip_accents": None},
            "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": post_processor, "decoder": None,
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100, "vocab": vocab},
        }  # fmt: skip
        (folder / "tokenizer.json").write_text(json.dumps(body))
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "token_type_ids"],
            "pad_token": "[PAD]",
        }  # fmt: skip
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return folder

    return made


def transformers_runs(folder, *, pair):
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(["a file"], ["copy"] if pair else None, return_tensors="pt")
    kind = transformers.BertForSequenceClassification if pair else transformers.BertModel
    model = kind.from_pretrained(folder).eval()
    return model(**inputs)


def test_pairs_of_type_one_where_there_is_one_type(make_checkpoint, make_config, tmp_path):
    folder = make_checkpoint(config=make_config(**RERANKER, type_vocab_size=1))
    with pytest.raises(IndexError):
        transformers_runs(folder, pair=True)
    for verify in (True, False):
        with pytest.raises(CheckpointError, match=r"token types up to 1, but config\.json has type_vocab_size 1"):
            export(folder, tmp_path / "out", verify=verify)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("types", [(0, 2, 0), (2, 0, 0), (0, 0, 2), (0, 7, 1)])
def test_types_that_have_no_row(make, tmp_path, types):
    folder = make(template(True, types), **RERANKER)
    with pytest.raises(IndexError):
        transformers_runs(folder, pair=True)
    with pytest.raises(CheckpointError, match=f"token types up to {max(types)}, but config.json has type_vocab_size 2"):
        export(folder, tmp_path / "out", verify=False)


@pytest.mark.parametrize("types", [(0, 0, 0), (1, 1, 1), (1, 0, 1), (0, 1, 1)])
def test_types_that_have_rows(make, tmp_path, types):
    export(make(template(True, types), **RERANKER), tmp_path / "out")


def test_an_encoder_has_type_zero_alone(make, tmp_path):
    with pytest.raises(CheckpointError, match=r"post_processor\.single gives token type 1"):
        export(make(template(True, (1, 0, 1))), tmp_path / "out", pooling="cls", normalize=True, verify=False)


def test_a_reranker_whose_tokenizer_gives_no_types(make_checkpoint, make_config, tmp_path):
    """PyTorch's model takes type 0 then, whatever the template says; the comparison with it must not hand it others."""
    from bgert import Reranker

    folder = make_checkpoint(config=make_config(**RERANKER))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_input_names": ["input_ids", "attention_mask"]}))
    expected = transformers_runs(folder, pair=True).logits.detach().numpy()
    manifest = export(folder, tmp_path / "out")
    assert any("all tokens have type 0" in choice.why for choice in manifest.choices)
    np.testing.assert_allclose(Reranker(tmp_path / "out").score([("a file", "copy")]), expected[0], atol=1e-4)


def test_ids_of_a_template_that_have_no_row(make, tmp_path):
    folder = make(template(True, ids=(2, 4000)))
    with pytest.raises(CheckpointError, match="ids up to 4000, but"):
        export(folder, tmp_path / "out", pooling="cls", normalize=True, verify=False)


@pytest.mark.parametrize("kind", [{}, RERANKER])
@pytest.mark.parametrize("post_processor", [None, template(False)])
def test_a_tokenizer_without_special_tokens(make, tmp_path, kind, post_processor):
    """An empty text has no tokens: PyTorch's mean of none is NaN, and its first row is not there."""
    options = {} if kind else {"pooling": "mean", "normalize": True}
    with pytest.raises(CheckpointError, match="no special tokens around a text"):
        export(make(post_processor, **kind), tmp_path / "out", verify=False, **options)


def test_added_tokens_have_rows_too(make_config):
    from types import SimpleNamespace

    from bgert.tokenizer.templates import bert_templates

    architecture = Architecture.from_config(make_config(vocab_size=50))
    single, pair = bert_templates(2, 3)
    for largest, fits in ((49, True), (50, False)):
        spec = SimpleNamespace(vocab=["a"] * 9, added_tokens=[SimpleNamespace(id=largest)], single=single, pair=pair)
        if fits:
            check_tables(spec, architecture)
        else:
            with pytest.raises(CheckpointError, match="ids up to 50"):
                check_tables(spec, architecture)
