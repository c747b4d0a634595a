"""The part of RESULTS.md on networks that are not BERT's: bgert beside the peers that run them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import results
from figures import best_peer, ours, precision, running, title
from tables import failures, table, times

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FOLDER", "detail", "newest"]

FOLDER = results.RESULTS / "families"


def newest(folder: Path = FOLDER) -> dict[str, Any]:
    """The newest result."""
    return results.read(results.newest(folder))


def detail(result: dict[str, Any]) -> str:
    """A table for each text set, and what did not run."""
    machine = result["machine"]
    lines = [
        "## Other networks",
        "",
        f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, {result['date']}, commit "
        f"{result['commit']}; random weights, fp32, median of rounds in turns; time: how many times bgert's.",
        "",
    ]
    models = {name: model for name, model in result["models"].items() if "bgert" in running(model)}
    for texts in dict.fromkeys(texts for model in models.values() for texts in model["sets"]):
        rows = []
        for name, model in models.items():
            best = best_peer(model, texts, exact=True)
            for peer, entry in running(model).items():
                found = entry["sets"].get(texts)
                if found is None:
                    continue
                speed = found["tokens_per_second"]
                time = times(found["ratio"]) if "ratio" in found else ""
                rows.append(
                    [
                        name if ours(peer) else "",
                        title(peer),
                        precision(entry),
                        f"{speed['median']:,.0f} ({speed['min']:,.0f} to {speed['max']:,.0f})",
                        f"**{time}**" if best is not None and peer == best.peer else time,
                        f"{entry['quality']['cosine_min']:.7f}",
                    ]
                )
        facts = ", ".join(f"{name} {model['sets'][texts]['tokens']:,}" for name, model in models.items())
        lines += [f"**{texts}**, tokens: {facts}", ""]
        lines += table(["network", "peer", "precision", "tokens/s", "time", "least cosine"], rows)
        lines.append("")
    for name, model in models.items():
        if failed := failures(model):
            lines += [f"{name}:", "", *failed, ""]
    return "\n".join(lines)
