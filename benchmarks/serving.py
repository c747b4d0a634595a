"""The server's results: read, judged against what it must reach, and as tables and plots."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from bgert.latency.svg import Line, lines

__all__ = ["RESULTS", "begin", "detail", "failures", "newest", "plots", "readme", "summary"]

SCHEMA = "serving-2"
RESULTS = Path(__file__).resolve().parent / "results" / "serving"
PACKAGES = ("bgert", "numpy", "onnxruntime", "httptools", "msgspec", "uvloop")
SHARES = {"base64": 0.90, "float": 0.85}
IDLE_MS = 0.8
GOODPUT, RECOVERED, FLAT = 0.90, 0.90, 1.05
BATCHES = 3.0
KEPT = 1.25  # of the promised wait: the speed may change meanwhile, and a request's own batch comes then
RATIOS = {"bgert-fp32": 1.8, "bgert-int8": 4.0}
SHAPES = {"single_c16": "1 text, 16 clients", "mixed32_c4": "32 mixed texts, 4 clients"}


def begin(date: str, commit: str, machine: dict[str, Any]) -> dict[str, Any]:
    """An empty result."""
    installed = {entry.name: entry.version for entry in metadata.distributions()}
    versions = {name: installed[name] for name in PACKAGES if name in installed}
    return {"schema": SCHEMA, "date": date, "commit": commit, "machine": machine, "versions": versions, "stages": {}}


def newest(folder: Path = RESULTS) -> dict[str, Any] | None:
    """The newest result; None if there is none.

    Raises:
        ValueError: it has another schema.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        return None
    result: dict[str, Any] = json.loads(paths[-1].read_text(encoding="utf-8"))
    if result.get("schema") != SCHEMA:
        raise ValueError(f"{paths[-1]} has schema {result.get('schema')}, not {SCHEMA}: measure again")
    return result


def checks(result: dict[str, Any]) -> list[tuple[str, bool]]:
    """What must be reached, said with its figure, and whether it was; of the stages that were measured."""
    stages = result["stages"]
    found: list[tuple[str, bool]] = []
    if cost := stages.get("cost"):
        for name, least in SHARES.items():
            share = cost["share"][name]
            found.append(
                (f"64 clients x 8 texts, {name}: {share:.1%} of Encoder's, at least {least:.0%}", share >= least)
            )
    if idle := stages.get("idle"):
        over = idle["p50_over_encoder_ms"]
        found.append((f"idle: {over:.2f} ms over Encoder, at most {IDLE_MS}", over <= IDLE_MS))
    for load in stages.get("load", {}).get("loads", ()):
        if load["times_capacity"] <= 1:
            continue
        name = f"{load['times_capacity']:g}x"
        found.append((f"{name}: replies {load['statuses']}, only 200 and 429", set(load["statuses"]) <= {"200", "429"}))
        share = load["share_of_capacity"]
        found.append((f"{name}: goodput {share:.1%} of capacity, at least {GOODPUT:.0%}", share >= GOODPUT))
        p99, bound = load["latency_ms"].get("p99", float("inf")), load["queue_bound_ms"] or 0
        found.append((f"{name}: p99 {p99:,.0f} ms, a full queue took up to {bound:,.0f}", p99 <= bound))
        promised = KEPT * (load["promised_ms"] or 0)
        found.append(
            (f"{name}: p99 {p99:,.0f} ms, what admission promised and a quarter are {promised:,.0f}", p99 <= promised)
        )
        memory = load["resident_bytes"]
        grown = memory["end"] / memory["half"]
        found.append((f"{name}: memory {grown:.3f} times that of the middle, at most {FLAT}", grown <= FLAT))
        again = load["speed_after_2_s"]
        found.append((f"{name}: {again:.1%} of capacity 2 s after, at least {RECOVERED:.0%}", again >= RECOVERED))
    if gone := stages.get("abandoned"):
        most = gone["delay_in_batches"]["max"]
        found.append((f"30 requests abandoned: the next waits {most:.2f} batches, below {BATCHES:g}", most < BATCHES))
    for shape, entry in stages.get("peer", {}).items():
        for name, least in RATIOS.items():
            ratio = entry[name]["ratio"]["median"]
            found.append((f"{SHAPES[shape]}, {name}: {ratio:.2f} times infinity, at least {least}", ratio >= least))
    return found


def failures(result: dict[str, Any]) -> list[str]:
    """What was not reached."""
    return [line for line, reached in checks(result) if not reached]


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Each demand, and whether it is met."""
    return {line: "reached" if reached else "NOT REACHED" for line, reached in checks(result)}


def readme(result: dict[str, Any] | None) -> str:
    """A table of a few lines; empty while nothing was measured."""
    if not result:
        return ""
    stages, rows = result["stages"], []
    if cost := stages.get("cost"):
        shares = cost["share"]
        rows.append(
            f"64 clients of 8 mixed texts: tokens per CPU second beside `Encoder` in process | "
            f"**{shares['base64']:.0%}** with base64, **{shares['float']:.0%}** with floats"
        )
    if idle := stages.get("idle"):
        rows.append(
            f"one short text, idle server | **{idle['ms']['server']['p50']:.2f} ms** "
            f"(`Encoder` {idle['ms']['encoder']['p50']:.2f} ms)"
        )
    rows.extend(
        f"{load['times_capacity']:g} times capacity offered for {load['seconds']:.0f} s | goodput "
        f"**{load['share_of_capacity']:.0%}** of capacity, the rest 429; p99 of the accepted "
        f"{load['latency_ms']['p99'] / 1e3:.1f} s"
        for load in stages.get("load", {}).get("loads", ())
        if load["times_capacity"] > 1
    )
    for shape, entry in stages.get("peer", {}).items():
        ratios = {name: entry[name]["ratio"]["median"] for name in RATIOS}
        version = result["peer_versions"].get("infinity-emb") or result["peer_versions"].get("infinity_emb", "")
        rows.append(
            f"{SHAPES[shape]}: requests per CPU second beside infinity-emb {version}"
            f" | **{ratios['bgert-fp32']:.1f} x** in fp32, **{ratios['bgert-int8']:.1f} x** in int8"
        )
    place = f"all-MiniLM-L6-v2, {result['machine']['processor']}, {result['machine']['cores']} cores"
    note = f"*{place}, {result['date']}, commit {result['commit']}.*"
    return "\n".join(["| `bgert serve` | |", "| --- | --- |", *(f"| {row} |" for row in rows), "", note])


def detail(result: dict[str, Any] | None) -> str:
    """The section of RESULTS.md."""
    if not result:
        return ""
    parts = ["", "## The server", "", readme(result), ""]
    if load := result["stages"].get("load"):
        parts += [
            f"Open loop: requests of {load['texts_each']} mixed texts come by a clock (Poisson), latency counts from "
            f"when they were due. Capacity: {load['capacity_requests_per_second']:.1f} requests/s. Above capacity all "
            "clients leave at the end, and others come 2 s later.",
            "",
            "| offered | goodput | p50 / p95 / p99 / max ms | replies | memory at start, end | speed 2 s after |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for row in load["loads"]:
            times = " / ".join(f"{row['latency_ms'][name]:,.0f}" for name in ("p50", "p95", "p99", "max"))
            replies = ", ".join(f"{count:,} x {status}" for status, count in row["statuses"].items())
            memory = row["resident_bytes"]
            after = f"{row['speed_after_2_s']:.0%}" if "speed_after_2_s" in row else ""
            parts.append(
                f"| {row['times_capacity']:g} x | {row['share_of_capacity']:.0%} | {times} | {replies} | "
                f"{memory['start'] / 1e6:,.0f}, {memory['end'] / 1e6:,.0f} MB | {after} |"
            )
        parts += ["", "![goodput](plots/serving-goodput.svg)", "", "![latency](plots/serving-latency.svg)", ""]
    parts += ["What it must reach:", ""]
    parts += [f"- {line}: {'reached' if reached else '**not reached**'}" for line, reached in checks(result)]
    return "\n".join(parts) + "\n"


def plots(result: dict[str, Any] | None) -> dict[str, str]:
    """SVG by file name."""
    loads = [] if not result else result["stages"].get("load", {}).get("loads", [])
    if not loads:
        return {}
    goodput = [(load["times_capacity"], load["share_of_capacity"]) for load in loads]
    latency = [
        Line(
            f"{name} of the accepted",
            [(load["times_capacity"], load["latency_ms"][name]) for load in loads],
            ours=name == "p50",
        )
        for name in ("p50", "p95", "p99")
    ]
    title = "bgert serve: {} against offered load"
    return {
        "serving-goodput.svg": lines(
            title.format("goodput"),
            "offered, times capacity",
            "200/s, times capacity",
            [Line("goodput", goodput, ours=True)],
            log_y=False,
        ),
        "serving-latency.svg": lines(title.format("latency"), "offered, times capacity", "ms", latency, log_y=True),
    }
