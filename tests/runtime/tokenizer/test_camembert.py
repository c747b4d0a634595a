"""CamemBERT's tokenizer, XLM-RoBERTa's pipeline with another vocabulary, against `transformers.AutoTokenizer`."""

import json
import random

import pytest
import transformers

from bgert.errors import ModelFolderError
from bgert.tokenizer import Tokenizer

FIRST = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"]
TEXTS = [
    "hello the quick ½ ﬁ <mask> 日本",
    "naïve a  <mask>b </s> e\u0302",
    "<s>NOTUSED a<unk>NOTUSED",
    "<s> ☃ </s>",
    "",
]
SETTINGS = {
    "as published": {"model_max_length": 512},
    "mask by its text": {"mask_token": "<mask>"},
    "mask as an object": {"mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": True}},
    "its own extra tokens": {"additional_special_tokens": ["<new>"]},
    "no extra tokens": {"additional_special_tokens": []},
    "another unknown": {"unk_token": "<pad>"},
}


@pytest.fixture(scope="module")
def write(unigram, charsmap):
    vocab = unigram.vocabulary()
    body = unigram.tokenizer_json(vocab, charsmap)
    pieces = [*((token, 0.0) for token in FIRST[:4]), (FIRST[4], -100.0), *vocab[4:-1], ("<mask>", 0.0)]
    pieces += [("<s>", 0.0), ("</s>", 0.0)]
    ids = {token: index for index, (token, _) in enumerate(pieces)}
    body["model"] |= {"vocab": pieces}
    body["added_tokens"] = [token | {"id": ids[token["content"]]} for token in body["added_tokens"]]
    for token in ("<s>", "</s>"):
        body["post_processor"]["special_tokens"][token]["ids"] = [ids[token]]

    def write(folder, **settings):
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "camembert"}')
        (folder / "tokenizer.json").write_text(json.dumps(body), encoding="utf-8")
        settings = {"tokenizer_class": "CamembertTokenizer"} | settings
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return folder

    return write


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.filterwarnings("default")
def test_ids_are_those_of_auto_tokenizer(write, unigram, tmp_path, name):
    folder = write(tmp_path / "model", **SETTINGS[name])
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), Tokenizer.from_folder(folder)
    assert type(theirs).__name__ == "CamembertTokenizer"
    print("seed 11")
    draw = random.Random(11)
    words = [piece for piece, _ in unigram.vocabulary()]
    texts = [*TEXTS, *("".join(draw.choices([*words, " ", "  ", "<mask>", "\n"], k=12)) for _ in range(500))]
    assert ours.encode_batch(texts).tolist() == theirs(texts)["input_ids"]
    assert ours.encode_batch(texts, texts[::-1]).tolist() == theirs(texts, texts[::-1])["input_ids"]


def test_without_tokenizer_json_it_is_refused(write, tmp_path):
    folder = write(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / "sentencepiece.bpe.model").write_bytes(b"")
    with pytest.raises(ModelFolderError, match=r"no tokenizer\.json"):
        Tokenizer.from_folder(folder)
