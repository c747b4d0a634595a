"""Byte-level BPE tokenizers as people publish them, trained here on text of many scripts, as files of a checkpoint."""

import json
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from bgert.tokenizer.split_patterns import PATTERNS

TEXT = """
the of and to in is that it was for on are
with as they be at this have from tokenizer tokenization encode
encoding unbelievable HTTPServer parseXMLFile camelCase snake_case don't can't we're they've I'm she'll he'd
IT'S 1234567
2024 3.14159 12 café naïve straße résumé Ελληνικά ελλάδα привет москва Привет Москва МОСКВА שלום עולם مرحبا بالعالم
नमस्ते दुनिया
สวัสดีชาวโลก
日本語 中国人民 中华人民共和国 한국어 안녕하세요 カタカナ
ひらがな tiếng Việt ǅungla ﬁnal ½ ² Ⅷ ١٢٣
🙂 👩‍👩‍👧 🇩🇪 ... !!! ?? () [] {} => -> != == /* */ // \\n \\t <div> </div> https://example.com/path?q=1
"""
WORDS = TEXT.split()
JOINS = [" ", " ", " ", " ", "  ", "\n", "\n\n", "\t", "\r\n", ", ", ". ", "   ", "\u00a0", "\u3000", ""]
ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BERT_SPECIALS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]


def corpus(seed=3, texts=600):
    """Texts to train on, the same every time."""
    draw = random.Random(seed)
    return ["".join(draw.choice(WORDS) + draw.choice(JOINS) for _ in range(draw.randint(1, 60))) for _ in range(texts)]


def train(pattern="gpt2", *, specials=ROBERTA_SPECIALS, nfc=False, prefix=False, ignore_merges=False, size=1500):
    """A tokenizer whose words are cut by the expression of that name."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.normalizer = normalizers.NFC() if nfc else None
    expression = {name: text for text, name in PATTERNS.items()}[pattern]
    if pattern == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    else:
        split = pre_tokenizers.Split(Regex(expression), "isolated")
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def roberta(**options):
    """RoBERTa's pipeline: spaces are left out of offsets, `<mask>` takes those before it."""
    tokenizer = train("gpt2", **options)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    ends = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    prefix = options.get("prefix", False)
    tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=prefix)
    return tokenizer


def modernbert(pattern="gpt2", **options):
    """ModernBERT's: NFC, and tokens of several spaces that are looked for in normalised text."""
    tokenizer = train(pattern, specials=BERT_SPECIALS, nfc=True, **options)
    tokenizer.add_tokens([AddedToken(" " * count, normalized=True) for count in range(8, 1, -1)])
    tokenizer.add_tokens([AddedToken("|||IP_ADDRESS|||", normalized=True), AddedToken("[unused0]", normalized=True)])
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True)])
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ids
    )
    return tokenizer


def llama3(pattern="llama3", **options):
    """Llama 3's: a token that is a whole word needs no merges; a special token begins every text."""
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|mask|>"]
    tokenizer = train(pattern, specials=specials, ignore_merges=True, **options)
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A <|end_of_text|>",
        pair="<|begin_of_text|> $A <|end_of_text|> $B <|end_of_text|>",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in specials[:2]],
    )
    level = processors.ByteLevel(add_prefix_space=True, trim_offsets=False)
    tokenizer.post_processor = processors.Sequence([level, template])
    return tokenizer


def write(folder, tokenizer, *, model_type=None, legacy=False, **settings):
    """The files of a checkpoint; `legacy`: vocab.json and merges.txt instead of tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    body = json.loads(tokenizer.to_str())
    if legacy:
        (folder / "vocab.json").write_text(json.dumps(body["model"]["vocab"], ensure_ascii=False), encoding="utf-8")
        merges = [item if isinstance(item, str) else " ".join(item) for item in body["model"]["merges"]]
        lines = ["#version: 0.2", *merges, ""]
        (folder / "merges.txt").write_bytes("\n".join(lines).encode())
    else:
        (folder / "tokenizer.json").write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")
    if model_type is not None:
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
