"""RoBERTa and ModernBERT checkpoints with byte-level BPE, from files to vectors and scores."""

import json

import numpy as np
import pytest
import torch
import transformers

import bgert
from bgert.tokenizer import Tokenizer
from bgert_export import export
from random_network import draw_weights

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


TWINS = {
    "modernbert": ("PreTrainedTokenizerFast", ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]),
    "roberta": ("RobertaTokenizer", ["<unk>", "<s>", "</s>", "<pad>", "<mask>"]),
}
HARD = [
    *TEXTS,
    "        if x == 1:\n            return 'é'  # |||IP_ADDRESS||| and [unused0]",
    "[MASK] a   [MASK][SEP] of the  \u00a0\u3000 [CLS]",
    "e\u0301 ﬁnal ½ Å café " * 3,
    "  leading and trailing  ",
    "\r\n\t ",
    "unbelievable tokenization " * 40,
]


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("model_type", TWINS)
def test_vectors_are_those_of_sentence_transformers(bpe, tmp_path, sentence_transformers_files, model_type, pooling):
    """The files that the hub has beside such a network, its limit of tokens and a prompt too."""
    peer_of = pytest.importorskip("sentence_transformers").SentenceTransformer
    tokenizer = getattr(bpe, model_type)()
    class_name, specials = TWINS[model_type]
    names = [f"{part}_token" for part in ("unk", "cls", "sep", "pad", "mask")]
    folder = bpe.write(
        tmp_path / "checkpoint",
        tokenizer,
        tokenizer_class=class_name,
        model_max_length=72,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=True,
        **dict(zip(names, specials, strict=True)),
    )
    ids = {name: tokenizer.token_to_id(token) for name, token in zip(names, specials, strict=True)}
    local = {"local_attention": 16, "global_attn_every_n_layers": 2}
    config = transformers.AutoConfig.for_model(
        model_type,
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=80,
        pad_token_id=ids["pad_token"],
        bos_token_id=ids["cls_token"],
        eos_token_id=ids["sep_token"],
        **({"cls_token_id": ids["cls_token"], "sep_token_id": ids["sep_token"]} | local)
        if model_type == "modernbert"
        else {"type_vocab_size": 1},
    )
    print("seed 8")
    torch.manual_seed(8)
    network = transformers.AutoModel.from_config(config)
    draw_weights(network)
    network.save_pretrained(folder)
    files = sentence_transformers_files(pooling, prompts={"query": "search: "}, max_seq_length=None)
    for name, value in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    manifest = export(folder, tmp_path / "exported")
    assert [call.max_abs_error is not None for call in manifest.graphs[0].parity.calls] == [True] * 3
    encoder, peer = bgert.Encoder(tmp_path / "exported"), peer_of(str(folder), device="cpu")
    assert encoder.max_length == peer.max_seq_length == 72
    with pytest.warns(bgert.TruncationWarning, match="1 of"):
        found = encoder.encode(HARD)
    expected = np.concatenate([peer.encode([text]) for text in HARD])
    assert np.abs(found - expected).max() < 2e-5
    distinct = found @ found.T
    assert np.sort(distinct, axis=None)[: len(HARD)].max() < 0.98  # there is something to tell apart
    queries = encoder.encode_queries(HARD[:4])
    assert np.abs(queries - np.concatenate([peer.encode_query([text]) for text in HARD[:4]])).max() < 2e-5
    assert encoder.tokenizer.encode_batch(HARD).tolist() == peer.tokenizer(HARD, truncation=True)["input_ids"]
