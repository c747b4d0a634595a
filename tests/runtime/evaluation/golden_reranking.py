"""Random scores of candidates with ties, and mteb's figures for them: `python golden_reranking.py` writes them again.

The figures were made by mteb 2.26.24's own retrieval scores on the documents' names that its reranking tasks give, with
pytrec-eval-terrier 0.5.11.
"""

import json
import random
from pathlib import Path

GOLDEN = Path(__file__).with_name("mteb_reranking.json")
SEED = 20_261_127


def random_case():
    """Pairs of positive and negative candidates' scores, a query: from one candidate of a kind to more than a thousand,
    coarse for many ties, and queries without one kind. Only random() is used, whose stream Python keeps."""
    rng = random.Random(SEED)
    cases = []
    for number in range(80):
        levels = 2 + int(rng.random() * 30)
        positive, negative = int(rng.random() ** 3 * 30) + (number % 9 > 0), int(rng.random() * 40) + (number % 7 > 0)
        if number in (5, 6):
            negative = 1_100
        draw = lambda count: [int(rng.random() * levels) / levels - 0.5 for _ in range(count)]  # noqa: E731, B023
        cases.append((draw(positive), draw(negative)))
    cases += [([0.5], [0.5]), ([0.5, 0.5], [0.5] * 3), ([], [0.1]), ([0.1], []), ([], [])]
    return cases


def mteb_scores(cases):
    """Number of the query to metric to value, of those that mteb keeps."""
    import mteb
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores
    from mteb.abstasks.text.reranking import AbsTaskReranking

    assert mteb.__version__ == "2.26.24"
    figures = {}
    for number, (positive, negative) in enumerate(cases):
        if not positive or not negative:  # as AbsTaskReranking.transform_old_dataset_format
            continue
        texts = {"query": "", "positive": [""] * len(positive), "negative": [""] * len(negative)}
        example = AbsTaskReranking._process_example(None, texts, "test", number)
        names = example["doc_ids"]
        qrels = {"q": dict(zip(names, example["relevance_scores"], strict=True))}
        run = dict(zip(names, [*positive, *negative], strict=True))
        found = calculate_retrieval_scores({"q": run}, qrels, [1, 3, 10, 1000])
        (scores,) = found.all_scores.values()
        figures[str(number)] = {f"map@{k}": scores[f"map_cut_{k}"] for k in (1, 3, 10, 1000)}
        figures[str(number)] |= {f"mrr@{k}": found.mrr[f"MRR@{k}"] for k in (1, 3, 10, 1000)}
    return figures


if __name__ == "__main__":
    body = {"made_by": "mteb 2.26.24", "seed": SEED, "per_query": mteb_scores(random_case())}
    GOLDEN.write_text(json.dumps(body, indent=1) + "\n")
