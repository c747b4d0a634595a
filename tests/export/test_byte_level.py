"""RoBERTa checkpoints with byte-level BPE, from files to vectors and scores."""

import json

import numpy as np
import pytest
import torch
import transformers

import bgert
from bgert.tokenizer import Tokenizer
from bgert_export import export

TEXTS = ["The tokenizer of the café", "", "  don't <mask> HTTPServer\n\n" * 3, "привет 日本語 🙂"]
PAIRS = [("the tokenizer", "encoding of the words " * 4), ("", "naïve"), ("the <pad> of", "12345")]


@pytest.fixture(params=[False, True], ids=["tokenizer.json", "vocab.json and merges.txt"])
def make(request, bpe, tmp_path):
    """A checkpoint of a class whose weights transformers drew and wrote, with a tokenizer of its own."""

    def build(end):
        tokenizer = bpe.roberta()
        folder = bpe.write(
            tmp_path / end, tokenizer, legacy=request.param, tokenizer_class="RobertaTokenizer", model_max_length=64
        )
        config = transformers.RobertaConfig(
            vocab_size=tokenizer.get_vocab_size(), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=128, max_position_embeddings=66, type_vocab_size=1, pad_token_id=1, bos_token_id=0,
            eos_token_id=2, num_labels=1,
        )  # fmt: skip
        print("seed 5")
        torch.manual_seed(5)
        getattr(transformers, f"Roberta{end}")(config).save_pretrained(folder)
        return folder

    return build


def theirs_of(folder, name):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer, getattr(transformers, name).from_pretrained(folder).eval()


@pytest.mark.filterwarnings("default")
def test_vectors_are_those_of_the_checkpoint(make, tmp_path):
    folder = make("Model")
    tokenizer, model = theirs_of(folder, "AutoModel")
    expected = []
    for text in TEXTS:
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0].double().numpy()
        expected.append(hidden / np.linalg.norm(hidden))
    result = export(folder, tmp_path / "exported", targets=["cpu"], pooling="cls", normalize=True, verify=False)
    encoder = bgert.Encoder(tmp_path / "exported", device="cpu")
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-6)
    assert result is not None
    manifest = json.loads((tmp_path / "exported" / "manifest.json").read_text())
    assert manifest["tokenizer"]["kind"] == "bpe"
    again = Tokenizer.from_folder(tmp_path / "exported")
    assert again.encode_batch(TEXTS).tolist() == tokenizer(TEXTS)["input_ids"]
    (tmp_path / "exported" / "bpe.bin").write_bytes(b"other")
    with pytest.raises(bgert.errors.IntegrityError):
        Tokenizer.from_folder(tmp_path / "exported")


@pytest.mark.filterwarnings("default")
def test_scores_are_those_of_the_checkpoint_and_are_verified(make, tmp_path):
    folder = make("ForSequenceClassification")
    tokenizer, model = theirs_of(folder, "AutoModelForSequenceClassification")
    with torch.no_grad():
        expected = [model(**tokenizer(*pair, return_tensors="pt")).logits[0, 0].item() for pair in PAIRS]
    export(folder, tmp_path / "exported", targets=["cpu"])
    reranker = bgert.Reranker(tmp_path / "exported", device="cpu")
    scores = reranker.score(PAIRS)
    np.testing.assert_allclose(scores, expected, atol=2e-5)
