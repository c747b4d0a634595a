"""Checkpoints whose tokenizer bgert does not have, run by HF `tokenizers` where that was asked for."""

import json
import warnings

import numpy as np
import pytest
import sentence_transformers
import torch
import transformers

import bgert
import hf_tokenizers_data as data
from bgert.errors import IntegrityError, InvalidOptionError, InvalidTextError, ModelFolderError, TruncationWarning
from bgert.tokenizer import Tokenizer
from bgert_export import export
from bgert_export.errors import CheckpointError, UnsupportedCheckpointError

TEXTS = [
    "The tokenizer of the café", "", "  don't encode\n\n" * 30, "привет 日本語 🙂", "[SEP] a [MASK] file", "a\0b",
    "\u200b", "1234 naïve " * 40, "\x01\x02 the text",
]  # fmt: skip
PAIRS = [("the tokenizer", "encode of the words " * 40), ("", "naïve"), ("the [PAD] of " * 30, "12345 " * 30), ("", "")]


@pytest.fixture(params=data.KINDS, scope="module")
def tokenizer(request):
    return data.KINDS[request.param]()


def checkpoint(folder, tokenizer, end, **settings):
    folder.mkdir()
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 48,
        "model_input_names": inputs,
    } | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(names | settings))
    config = transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=64, num_labels=1, pad_token_id=3,
    )  # fmt: skip
    print("seed 5")
    torch.manual_seed(5)
    getattr(transformers, f"Bert{end}")(config).save_pretrained(folder)
    return folder


def exported(source, to, **options):
    options = (
        {"verify": False, "tokenizer": "huggingface"} | ({"normalize": True} if "pooling" in options else {}) | options
    )
    return export(source, to, **options), to


@pytest.mark.filterwarnings("default")
def test_vectors_and_ids_are_those_of_sentence_transformers(tokenizer, tmp_path):
    source = checkpoint(tmp_path / "source", tokenizer, "Model")
    with pytest.raises(ModelFolderError, match=r"--tokenizer huggingface: HF tokenizers makes the ids then, .* Rust"):
        export(source, tmp_path / "native", pooling="mean", normalize=True, verify=False)
    manifest, folder = exported(source, tmp_path / "model", pooling="mean", normalize=True, verify=True)
    assert manifest.tokenizer["kind"] == "huggingface"
    assert manifest.graphs[0].parity.max_abs_error < 2e-5
    assert any(choice.field == "tokenizer" and "Rust" in choice.why for choice in manifest.choices)

    theirs = transformers.AutoTokenizer.from_pretrained(source)
    ours = Tokenizer.from_folder(folder)
    assert ours.encode_batch(TEXTS).tolist() == theirs(TEXTS, truncation=True, max_length=48)["input_ids"]
    for side in ("right", "left"):
        theirs.truncation_side = side
        for limit in range(5, 24):
            batch = ours.encode_batch(*zip(*PAIRS, strict=True), max_length=limit, truncation_side=side)
            expected = theirs(*map(list, zip(*PAIRS, strict=True)), truncation="longest_first", max_length=limit)
            assert batch.tolist() == expected["input_ids"]
            rows = zip(batch.cu_seqlens, batch.cu_seqlens[1:], strict=False)
            assert [batch.type_ids[i:j].tolist() for i, j in rows] == expected["token_type_ids"]

    peer = sentence_transformers.SentenceTransformer(str(source), device="cpu")  # without modules: mean pooling
    peer.max_seq_length = 48
    encoder = bgert.Encoder(folder, device="cpu")
    with pytest.warns(TruncationWarning):
        vectors = encoder.encode(TEXTS)
    np.testing.assert_allclose(vectors, peer.encode(TEXTS, batch_size=1, normalize_embeddings=True), atol=2e-5)
    lengths = [len(row) for row in theirs(TEXTS)["input_ids"]]
    assert vectors.info.truncated.tolist() == [length > 48 for length in lengths]
    assert any(vectors.info.truncated)
    for threads in (1, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = bgert.Encoder(folder, device="cpu", threads=threads).encode(TEXTS)
        assert (again == vectors).all()


@pytest.mark.filterwarnings("default")
def test_scores_are_those_of_the_cross_encoder(tokenizer, tmp_path):
    source = checkpoint(tmp_path / "source", tokenizer, "ForSequenceClassification")
    manifest, folder = exported(source, tmp_path / "model", verify=True)
    assert manifest.graphs[0].parity.max_abs_error < 2e-5
    theirs = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(source).eval()
    expected = []
    for pair in PAIRS:
        with torch.no_grad():
            inputs = theirs([pair[0]], [pair[1]], truncation="longest_first", max_length=48, return_tensors="pt")
            expected.append(float(model(**inputs).logits[0, 0]))
    with pytest.warns(TruncationWarning):
        scores = bgert.Reranker(folder, device="cpu").score(PAIRS)
    np.testing.assert_allclose(scores, expected, atol=2e-5)


def test_offsets_decoding_and_counts_are_the_librarys(tokenizer, tmp_path):
    _, folder = exported(checkpoint(tmp_path / "source", tokenizer, "Model"), tmp_path / "model", pooling="cls")
    ours = Tokenizer.from_folder(folder)
    for text in TEXTS:
        expected = tokenizer.encode(text)
        tokens = ours.tokens(text)
        assert [token.id for token in tokens] == expected.ids
        places = [(token.start, token.stop) for token in tokens if not token.special]
        assert places == [o for o, special in zip(expected.offsets, expected.sequence_ids, strict=True) if special == 0]
        for skip in (False, True):
            assert ours.decode(expected.ids, skip_special_tokens=skip) == tokenizer.decode(expected.ids, skip)
        assert ours.count([text]) == [len(expected.ids)]
    long = "the text of a file is on the folder. " * 50
    chunks = ours.chunk(long, max_tokens=20, overlap=3)
    assert len(chunks) > 10
    assert all(chunk.tokens == len(tokenizer.encode(long[chunk.start : chunk.stop]).ids) <= 20 for chunk in chunks)
    assert ours.vocab_size == tokenizer.get_vocab_size(with_added_tokens=False)
    assert ours.id_to_token(2) == tokenizer.id_to_token(2)
    with pytest.raises(InvalidTextError, match=r"ids\[1\] is 999999, which is the id of no token"):
        ours.decode([0, 999_999])


def test_special_tokens_in_a_text_can_be_plain_text(tokenizer, tmp_path):
    _, folder = exported(checkpoint(tmp_path / "source", tokenizer, "Model"), tmp_path / "model", pooling="cls")
    ours, text = Tokenizer.from_folder(folder), "a [SEP] b"
    assert ours.encode(text).tolist() == tokenizer.encode(text).ids
    tokenizer.encode_special_tokens = True
    expected = tokenizer.encode(text).ids
    tokenizer.encode_special_tokens = False
    assert ours.encode(text, split_special_tokens=True).tolist() == expected != ours.encode(text).tolist()


def test_hostile_texts_end_as_with_the_native_tokenizer(tokenizer, tmp_path, make_checkpoint):
    _, folder = exported(checkpoint(tmp_path / "source", tokenizer, "Model"), tmp_path / "model", pooling="cls")
    ours, native = Tokenizer.from_folder(folder), Tokenizer.from_folder(make_checkpoint())
    bad = [(["a", "b\ud800"], None), (["a", 3], None), (["a"], ["\udfff"]), (["a"], [b"x"]), (["é", None], None)]
    for texts, pairs in bad:
        with pytest.raises(InvalidTextError) as expected:
            native.encode_batch(texts, pairs)
        with pytest.raises(InvalidTextError) as found:
            ours.encode_batch(texts, pairs)
        assert str(found.value) == str(expected.value)
    for call in ("encode", "tokens"):
        with pytest.raises(InvalidTextError, match="lone surrogate at position 1"):
            getattr(ours, call)("a\ud800")
    with pytest.raises(InvalidOptionError, match="max_length is 1, but the special tokens alone are 2"):
        ours.encode_batch(["a"], max_length=1)
    for strategy in ("only_first", "only_second", "flag_embedding"):
        pair = (["a"], ["the " * 60]) if strategy == "only_first" else (["the " * 60], ["a"])
        options = {"query_max_length": 50} if strategy == "flag_embedding" else {}
        outcomes = []
        for one in (native, ours):
            with pytest.raises(InvalidTextError) as caught:
                one.encode_batch(*pair, max_length=20, truncation=strategy, **options)
            outcomes.append(str(caught.value))
        assert outcomes[0] == outcomes[1]
    assert ours.encode_batch([]).tolist() == []
    assert ours.encode("").tolist() == tokenizer.encode("").ids
    batch = ours.encode_batch(["the text " * 120_000], max_length=48)  # a megabyte
    assert batch.truncated.tolist() == [True]
    assert batch.tolist() == [tokenizer.encode("the text " * 100).ids[:47] + tokenizer.encode("").ids[1:]]


def test_how_many_tokens_of_a_pair_stay_is_what_the_native_tokenizer_keeps(tmp_path, make_checkpoint):
    """A word is a token to both, so rows of one are rows of the other."""
    _, folder = exported(checkpoint(tmp_path / "source", data.wordlevel(), "Model"), tmp_path / "model", pooling="cls")
    ours, native = Tokenizer.from_folder(folder), Tokenizer.from_folder(make_checkpoint())
    texts, pairs = zip(*[("a " * i, "the " * j) for i in range(12) for j in range(12)], strict=True)
    strategies = [("longest_first", {}), ("flag_embedding", {}), ("flag_embedding", {"query_max_length": 2})]
    for strategy, options in strategies:
        for limit in range(12 if options or strategy == "longest_first" else 48, 50, 3):
            rows = [
                one.encode_batch(texts, pairs, max_length=limit, truncation=strategy, **options)
                for one in (ours, native)
            ]
            assert (rows[0].cu_seqlens == rows[1].cu_seqlens).all()
            assert (rows[0].type_ids == rows[1].type_ids).all()
            assert (rows[0].truncated == rows[1].truncated).all()


def test_a_text_that_the_library_refuses_is_named(tmp_path):
    tokenizer = data.wordlevel()
    body = json.loads(tokenizer.to_str())
    _, folder = exported(checkpoint(tmp_path / "source", tokenizer, "Model"), tmp_path / "model", pooling="cls")
    body["model"]["unk_token"] = "[NONE]"
    rewrite(folder, json.dumps(body).encode())
    for threads in (1, 64):
        with pytest.raises(InvalidTextError, match=r"texts\[2\]: HF tokenizers cannot encode it: .*Missing"):
            Tokenizer.from_folder(folder).encode_batch(["the", "the", "nowhere", "nowhere"], threads=threads)
    with pytest.raises(InvalidTextError, match=r"texts\[1\]: HF tokenizers"):
        bgert.Encoder(folder, device="cpu").encode(["the", "nowhere"])


def rewrite(folder, content):
    """Another tokenizer.json, with a manifest that fits."""
    import hashlib

    (folder / "huggingface.json").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tokenizer_files"][0] |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_damaged_and_hostile_files_are_refused(tmp_path):
    tokenizer = data.wordlevel()
    _, folder = exported(checkpoint(tmp_path / "source", tokenizer, "Model"), tmp_path / "model", pooling="cls")
    good = (folder / "huggingface.json").read_bytes()
    (folder / "huggingface.json").write_bytes(good.replace(b"the", b"teh"))
    with pytest.raises(IntegrityError):
        Tokenizer.from_folder(folder)
    body = json.loads(good)
    huge = json.loads(good)
    huge["model"]["vocab"]["far"] = 2**31
    beyond = json.loads(good)
    beyond["model"]["vocab"]["far"] = 5000
    random = json.loads(data.spaced_bpe().to_str())
    random["model"]["dropout"] = 0.1
    cases = {
        "cannot read it": [b"", b"{}", b"\xff", good[:-9], json.dumps(body | {"model": {"type": "None"}}).encode()],
        "the largest id is": [json.dumps(huge).encode()],
        "do not belong together": [json.dumps(beyond).encode()],
        "ids would be random": [json.dumps(random).encode()],
    }
    for message, contents in cases.items():
        for content in contents:
            rewrite(folder, content)
            with pytest.raises(ModelFolderError, match=message):
                Tokenizer.from_folder(folder)
    rewrite(folder, good)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tokenizer"]["settings"]["single"]["prefix"] = [700]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFolderError, match="has the id 700, which is that of no token"):
        Tokenizer.from_folder(folder)
    manifest["tokenizer"]["files"] = ["other.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFolderError, match="has no size and digest in tokenizer_files"):
        Tokenizer.from_folder(folder)


def test_what_it_cannot_do_is_refused_at_export(tmp_path, make_checkpoint):
    from tokenizers import processors

    with pytest.raises(InvalidOptionError, match="unknown tokenizer 'hf': use bgert or huggingface"):
        exported(tmp_path, tmp_path / "model", tokenizer="hf")
    twice = data.wordlevel()
    twice.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP] $A", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    with pytest.raises(UnsupportedCheckpointError, match="post_processor does more than to put"):
        exported(checkpoint(tmp_path / "twice", twice, "Model"), tmp_path / "model", pooling="cls")
    left = checkpoint(tmp_path / "left", data.wordlevel(), "Model", truncation_side="left")
    with pytest.raises(ModelFolderError, match="truncation_side is set"):
        exported(left, tmp_path / "model", pooling="cls")
    colbert = checkpoint(tmp_path / "colbert", data.wordlevel(), "Model")
    config = json.loads((colbert / "config.json").read_text())
    (colbert / "config.json").write_text(json.dumps(config | {"architectures": ["HF_ColBERT"]}))
    with pytest.raises(UnsupportedCheckpointError, match="a ColBERT checkpoint takes bgert's own tokenizers alone"):
        exported(colbert, tmp_path / "model")
    broken = checkpoint(tmp_path / "broken", data.wordlevel(), "Model")
    (broken / "tokenizer.json").write_text("{")
    with pytest.raises((CheckpointError, ModelFolderError)):
        exported(broken, tmp_path / "model", pooling="cls")
    assert not (tmp_path / "model").exists()


@pytest.mark.filterwarnings("default")
def test_one_that_bgert_has_is_said_to_be_needless(make_checkpoint, tmp_path):
    source = make_checkpoint()
    said = []
    _, folder = exported(source, tmp_path / "model", pooling="cls", normalize=True, progress=said.append)
    assert any("bgert has this tokenizer itself" in line for line in said)
    exported(source, tmp_path / "native", tokenizer="bgert", pooling="cls", normalize=True)
    texts = ["a file", "", "今天 天气 x1!"]
    found = [Tokenizer.from_folder(path).encode_batch(texts, texts[::-1]) for path in (folder, tmp_path / "native")]
    assert found[0].tolist() == found[1].tolist()
    assert (found[0].type_ids == found[1].type_ids).all()


def test_int8_is_quantized_on_its_ids(tmp_path):
    source = checkpoint(tmp_path / "source", data.wordlevel(), "Model")
    _, folder = exported(
        source, tmp_path / "model", pooling="mean", normalize=True, targets=["cpu", "cpu-int8"], int8_floor=0.9
    )
    fp32, int8 = (bgert.Encoder(folder, device="cpu", precision=name).encode("the text") for name in ("fp32", "int8"))
    assert float(fp32 @ int8) > 0.9


def test_beside_the_target_portable_which_writes_a_tokenizer_json_too(tmp_path):
    source = checkpoint(tmp_path / "source", data.wordlevel(), "Model")
    _, folder = exported(source, tmp_path / "model", pooling="mean", normalize=True, targets=["cpu", "portable"])
    assert (folder / "tokenizer.json").exists()
    assert bgert.Encoder(folder, device="cpu").encode("the text").shape == (64,)
