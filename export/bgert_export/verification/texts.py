"""The texts that every export is verified on: no downloads, the same on every run.

English prose is the standard library's docstrings; the rest is written here. `ladder` covers lengths, `mixed` what
people write, `adversarial` batches in which padding would be most of the work.
"""

from __future__ import annotations

from itertools import islice

from bgert.evaluation.sample_texts import sample_texts

__all__ = ["EVEN", "adversarial", "few", "few_pairs", "ladder_lengths", "lengths_beyond", "long_text", "mixed", "pairs"]

EVEN = 512
"""Token count up to which lengths are tried at even distances: beyond, a text costs as much as all of those."""

_CHINESE = [
    "今天天气很好，我们去公园散步吧。",
    "如何复制一个文件夹以及其中的所有内容？",
    "向量检索把文本变成数字，再比较它们之间的距离。",
    "北京是中华人民共和国的首都，人口超过两千万。",
    "他说：“明天上午九点开会，请不要迟到！”大家都点了点头。",
    "深度学习模型在2018年之后迅速发展，BERT就是其中之一。",
    "這是一段繁體中文，用來檢查簡體與繁體的處理是否一致。",
    "苹果公司发布了新手机，价格为￥5999元，比去年便宜10%。",
]
_LANGUAGES = [
    "Der schnelle braune Fuchs springt über den faulen Hund; Größe und Straße schreibt man mit ß.",
    "L'élève naïf a mangé des crêpes à Noël, où était-il après ?",
    "El niño pequeño corrió rápidamente hacia el jardín. ¿Dónde está mañana?",
    "Быстрая коричневая лиса перепрыгивает через ленивую собаку.",
    "素早い茶色の狐がのろまな犬を飛び越える。カタカナとｶﾀｶﾅ。",
    "빠른 갈색 여우가 게으른 개를 뛰어넘습니다.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول",
    "השועל החום המהיר קופץ מעל הכלב העצלן",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है।",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ",
    "Con cáo nâu nhanh nhẹn nhảy qua con chó lười biếng.",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.",
]
_ODD = [
    "",
    " ",
    " \t\r\n\u00a0\u3000 ",
    "a",
    ".",
    "?!?!...---",
    "\u200b\u200e\ufeff",
    "zero\u0000byte and \u0007 bell",
    "emoji 😀👍🏽👩\u200d👩\u200d👧\u200d👦🇩🇪 and ☃",
    "mixed العربية and English עברית in one",
    "cafe\u0301 café CAFÉ ﬁ Å Å",
    "[CLS] literal [SEP] specials [MASK] </s> <s>",
    "padding <pad> written <pad><pad> out [PAD]",
    "x" * 300,
    "http://example.org/a/b?c=d&e=%20f#g user@example.org",
    "3.14159 1,000,000 0x1F 12:30:59 2024-02-29 ½ ² ①",
    "def f(x: int) -> dict[str, int]:\n\treturn {'a': x**2}  # comment",
    "ＦＵＬＬ　ＷＩＤＴＨ １２３",
    "\ud7a3\uffdc\U0001f9ff\U00020000 rare",
    "word\u2028line\u2029paragraph\u0085next",
    "A" + "\u0301" * 40,
]


def ladder_lengths(most: int, least: int = 2) -> list[int]:
    """Token counts to try one by one: all up to 24, about 24 more up to 512, the largest, and the halves of that.

    Args:
        most: longest input of the model, special tokens counted.
        least: number of special tokens.
    """
    even = min(most, EVEN)
    dense = range(least, min(24, most) + 1)
    step = max(1, (even - 24) // 24)
    return [*dense, *range(24 + step, even, step), *([even] if even > dense[-1] else []), *_halves(most, even)]


def lengths_beyond(most: int, positions: int) -> list[int]:
    """Token counts past the model's own limit: the next, the last that has a position, and the halves of that."""
    return sorted({most + 1, *_halves(positions, most)}) if positions > most else []


def _halves(most: int, above: int) -> list[int]:
    """`most`, and each time half of it and one, which no size of a block divides, while they are `above` that."""
    found: list[int] = []
    while most > above:
        found.insert(0, most)
        most = most // 2 + 1
    return found


def long_text(words: int) -> str:
    """A text of at least as many tokens, in several scripts: every word is one or more."""
    sentences = [text for group in zip(_CHINESE, _LANGUAGES, strict=False) for text in group]
    sentences += sample_texts(40, seed=3)
    text = " ".join(sentences).split()
    return " ".join(text[number % len(text)] for number in range(words))


def mixed(count: int = 96) -> list[str]:
    """English of all lengths, Chinese, other languages, odd text, interleaved."""
    chinese = [*_CHINESE, *("".join(_CHINESE[start:] * 3) for start in range(0, 8, 3))]
    sources = [iter(sample_texts(count, seed=1)), iter(chinese), iter(_LANGUAGES), iter(_ODD)]
    texts: list[str] = []
    while sources:
        for source in list(sources):
            portion = list(islice(source, 2))
            if not portion:
                sources.remove(source)
            texts += portion
    return texts


def adversarial() -> list[list[str]]:
    """Batches to run exactly as they are: one long text among many short ones, at either end, and all alike."""
    short = ["a", "", "hello world", *_CHINESE[:3], "?", *_LANGUAGES[:4]]
    # Padded attention needs B * heads * S * S numbers, so the longest text has few neighbours.
    long, middling = long_text(600), long_text(60)
    uneven = [*short[:9], middling, *short[4:], " ".join(middling.split()[:30]), *short]
    return [[long, *short[:6]], [*short, *short, middling], uneven, ["same"] * 17]


def pairs() -> list[tuple[str, list[str]]]:
    """Queries, each with its documents."""
    texts = mixed(48)
    queries = [
        "copy a folder with everything in it",
        "如何复制一个文件夹？",
        "Which day is today?",
        "",
        "😀",
        " ".join(long_text(60).split()),
    ]
    documents = [texts[number :: len(queries)] for number in range(len(queries))]
    documents[0] = [*documents[0], long_text(600)]
    documents[5] = [*documents[5], long_text(600)]
    return list(zip(queries, documents, strict=True))


def few() -> list[str]:
    """A dozen short texts, the empty one among them, for what does not depend on the network."""
    return [
        "",
        "a",
        "Paris is the capital of France.",
        "How do I copy a folder with everything in it?",
        *_CHINESE[:2],
        *_LANGUAGES[:3],
        "ＦＵＬＬ　ＷＩＤＴＨ café CAFÉ",
        "3.14159 1,000,000 0x1F user@example.org",
    ]


def few_pairs() -> list[tuple[str, str]]:
    """A dozen pairs of short query and document, the empty text on each side."""
    query, documents = "How do I copy a folder with everything in it?", few()
    return [(query, document) for document in documents[:6]] + [(text, documents[2]) for text in [*documents[6:], ""]]
