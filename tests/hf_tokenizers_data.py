"""Tokenizers that bgert has none for, as people publish them, trained or written here."""

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from bpe_data import BERT_SPECIALS, corpus

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "it",
    "for",
    "on",
    "with",
    "tokenizer",
    "encode",
    "café",
    "naïve",
    "привет",
    "日本語",
    "12",
    "a",
    "file",
    "folder",
    "text",
]


def framed(tokenizer):
    """BERT's special tokens around texts."""
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    tokenizer.add_special_tokens(BERT_SPECIALS)
    return tokenizer


def wordlevel():
    """A word is a token or unknown."""
    tokenizer = Tokenizer(models.WordLevel({t: i for i, t in enumerate([*BERT_SPECIALS, *WORDS])}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return framed(tokenizer)


def spaced_bpe():
    """SentencePiece's BPE: no bytes but those of characters that it does not have."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=[*BERT_SPECIALS, *bytes_], show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    return framed(tokenizer)


def odd_unigram():
    """Unigram behind a lower-casing normaliser and an expression."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.StripAccents()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\d"), "isolated"), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=700, special_tokens=BERT_SPECIALS, unk_token="[UNK]", show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return framed(tokenizer)


KINDS = {"wordlevel": wordlevel, "spaced bpe": spaced_bpe, "odd unigram": odd_unigram}
