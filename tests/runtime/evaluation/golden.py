"""Random runs with ties, and the figures of trec_eval for them: `python golden.py` writes trec_eval.json again.

The figures were made by pytrec-eval-terrier 0.5.11 (trec_eval in C).
"""

import json
import random
from pathlib import Path

GOLDEN = Path(__file__).with_name("trec_eval.json")
SEED = 20_261_124
CUTOFFS = (1, 3, 10, 100)


def random_case():
    """(document ids, scores by query id, qrels): coarse scores for many ties, grades from -2 to 4, and queries without
    any relevant document. Only random() is used, whose stream Python keeps."""
    rng = random.Random(SEED)
    ids = [prefix + str(number) for prefix in ("d", "é", "文", "D-") for number in range(45)]
    ids.sort(key=lambda _: rng.random())
    scores, qrels = {}, {}
    for number in range(60):
        query = f"q{number}"
        levels = 2 + int(rng.random() * 40)
        scores[query] = [int(rng.random() * levels) / levels - 0.5 for _ in ids]
        share, best = rng.random() * 0.4, number % 6
        judged = [name for name in ids if rng.random() < share] or ids[:1]
        qrels[query] = {name: int(rng.random() * (best + 2)) - 2 + (best > 2) for name in judged}
    return ids, scores, qrels


def trec_eval(ids, scores, qrels):
    """Query id to metric to value, by pytrec_eval."""
    import pytrec_eval

    cuts = ",".join(map(str, CUTOFFS))
    runs = {query: dict(zip(ids, row, strict=True)) for query, row in scores.items()}
    full = pytrec_eval.RelevanceEvaluator(qrels, {f"ndcg_cut.{cuts}", f"recall.{cuts}"}).evaluate(runs)
    first = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(runs)
    result = {}
    for query, judged in qrels.items():
        if max(judged.values()) < 1:
            continue
        rank = round(1 / first[query]["recip_rank"]) if first[query]["recip_rank"] else float("inf")
        result[query] = {f"ndcg@{k}": full[query][f"ndcg_cut_{k}"] for k in CUTOFFS}
        result[query] |= {f"recall@{k}": full[query][f"recall_{k}"] for k in CUTOFFS}
        result[query] |= {f"mrr@{k}": 1 / rank if rank <= k else 0.0 for k in CUTOFFS}
    return result


if __name__ == "__main__":
    body = {"made_by": "pytrec-eval-terrier 0.5.11", "seed": SEED, "per_query": trec_eval(*random_case())}
    GOLDEN.write_text(json.dumps(body, indent=1) + "\n")
