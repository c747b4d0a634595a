"""The protocol: peers of one group are alive together, and one at a time computes, in an order that rotates."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from peer_process import PeerFailedError, PeerProcess
from summary import percentiles, ratios, rounded, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import IO

    from peer_list import Peer
    from text_sets import TextSet

__all__ = ["Job", "measure_group", "rotated"]

LATENCY_TURNS = 3
# Tokens of the single texts whose latency is reported; the last is cut to the model's length.
LENGTHS = (16, 64, 512)


@dataclass
class Job:
    """What one model's measurement consists of.

    Attributes:
        task: what adapters are told, without `mode` and `options`.
        sets: text sets for throughput.
        single: texts for latency by token count.
        flop: arithmetic by set name.
        rounds: timed rounds.
        calls: timed calls at batch 1, 32 and 1,000.
        python: interpreter of each peer.
        gemm: interpreter and task of the bare products; None leaves them out.
        folder: where texts and vectors go.
        log: standard error of the peers.
        limit: seconds a command may take.
        say: progress.
    """

    task: dict[str, Any]
    sets: list[TextSet]
    single: dict[int, Any]
    flop: dict[str, int]
    rounds: int
    calls: tuple[int, int, int]
    python: dict[str, str]
    gemm: tuple[str, dict[str, Any]] | None
    folder: Path
    log: IO[str]
    limit: float
    say: Callable[[str], None] = print
    extra: dict[str, list[Any]] = field(default_factory=dict)


@dataclass
class Running:
    """A peer that is alive, and what was seen of it."""

    peer: Peer
    process: PeerProcess
    entry: dict[str, Any]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    calls: dict[str, list[float]] = field(default_factory=dict)
    idle_cpu: float = 0.0
    idle_wall: float = 0.0


class Group:
    """Peers alive together; one that fails is closed, and the others go on."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.alive: dict[str, Running] = {}
        self.entries: dict[str, dict[str, Any]] = {}

    def start(self, peer: Peer) -> None:
        """Start and load."""
        entry = self.entries[peer.name] = {"precision": peer.precision}
        process = PeerProcess(self.job.python[peer.name], peer.adapter, self.job.log, self.job.limit)
        running = self.alive[peer.name] = Running(peer, process, entry)
        self.turn(running, lambda: self._load(running, "throughput"))
        if peer.name in self.alive:
            entry["load_seconds"] = rounded(entry.pop("load"))

    def _load(self, running: Running, mode: str) -> None:
        answer = running.process.ask("load", task=task_of(self.job, running.peer, mode))
        running.entry["load"] = answer["seconds"]
        running.entry.setdefault("settings", {})[mode] = answer["settings"]
        running.entry["precision"] = running.peer.precision or answer["settings"].get("precision", "unknown")

    def turn(self, running: Running, work: Callable[[], Any]) -> Any:
        """One peer computes while the others wait; what they burn meanwhile is noted."""
        waiting = [other for other in self.alive.values() if other is not running]
        before = {other.peer.name: other.process.cpu_seconds() for other in waiting}
        begun = time.perf_counter()
        try:
            return work()
        except (PeerFailedError, OSError, ValueError) as error:
            running.entry["error"] = str(error).strip()[-400:] or type(error).__name__
            self.job.say(f"  {running.peer.name} failed: {running.entry['error']}")
            running.process.close()
            del self.alive[running.peer.name]
            return None
        finally:
            wall = time.perf_counter() - begun
            for other in waiting:
                other.idle_cpu += other.process.cpu_seconds() - before[other.peer.name]
                other.idle_wall += wall

    def each(self, number: int) -> Iterable[Running]:
        """The living in the order of a round."""
        return rotated(list(self.alive.values()), number)

    def close(self) -> None:
        """End all."""
        for running in self.alive.values():
            running.process.close()


def rotated(items: list[Any], number: int) -> list[Any]:
    """The list begun at another place each time."""
    shift = number % len(items) if items else 0
    return items[shift:] + items[:shift]


def task_of(job: Job, peer: Peer, mode: str) -> dict[str, Any]:
    """What the adapter is told."""
    return job.task | {"mode": mode, "options": peer.options}


def measure_group(job: Job, peers: list[Peer]) -> dict[str, Any]:
    """Measure peers against each other; the first is what the others' ratios are to.

    Returns:
        `peers`: an entry by name, with `error` where one failed; `gemm`: GFLOP/s of the bare products.
    """
    group = Group(job)
    gemm = None
    rates: list[dict[str, Any]] = []
    try:
        for peer in peers:
            group.start(peer)
        if job.gemm is not None:
            gemm = PeerProcess(job.gemm[0], "gemm", job.log, job.limit)
            gemm.ask("load", task=job.gemm[1])
        warm_up(group)
        for number in range(job.rounds):
            if gemm is not None:
                rates.append(gemm.ask("measure")["gflops"])
            for texts in job.sets:
                for running in list(group.each(number)):
                    answer = group.turn(running, partial(running.process.ask, "encode", name=texts.name))
                    if answer is not None:
                        running.seconds.setdefault(texts.name, []).append(answer["seconds"])
            job.say(f"  round {number + 1} of {job.rounds}")
        for running in list(group.alive.values()):
            answer = group.turn(running, partial(running.process.ask, "memory"))
            if answer is not None:
                running.entry["peak_rss_bytes"] = answer["peak_rss_bytes"]
        latencies(group)
        finish(group, peers[0].name)
    finally:
        group.close()
        if gemm is not None:
            gemm.close()
    return {"peers": group.entries, "gemm": gemm_summary(rates)}


def warm_up(group: Group) -> None:
    """Give the texts and run each set once; vectors of every set that is compared are kept."""
    job = group.job
    for name, texts in {**{entry.name: entry.texts for entry in job.sets}, **job.extra}.items():
        (job.folder / f"{name}.json").write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
        for running in list(group.alive.values()):
            if name.startswith("cranfield_") and not running.peer.searches:
                continue

            def run(running: Running = running, name: str = name) -> None:
                running.process.ask("texts", name=name, path=str(job.folder / f"{name}.json"))
                vectors = str(vectors_path(job.folder, running.peer.name, name))
                running.process.ask("encode", name=name, vectors=vectors)

            group.turn(running, run)
        job.say(f"  warm: {name}, {len(texts)} texts")


def vectors_path(folder: Path, peer: str, name: str) -> Path:
    """Where a peer's outputs of a set are kept."""
    return folder / f"{peer}.{name}.npy"


def latencies(group: Group) -> None:
    """Batches of `short` texts, then single texts of given lengths; what has a mode for single texts is reloaded."""
    job = group.job
    if not any(job.calls):
        return
    for length, text in job.single.items():
        (job.folder / f"tokens_{length}.json").write_text(json.dumps([text]), encoding="utf-8")
    one, some, many = job.calls
    batches = {"batch_32": ("short", 32, some), "batch_1000": ("short", 1000, many)}
    singles = {"batch_1": ("short", 1, one)}
    singles |= {f"tokens_{length}": (f"tokens_{length}", 1, one) for length in job.single}
    rotate_calls(group, batches)
    for running in list(group.alive.values()):

        def prepare(running: Running = running) -> None:
            if running.peer.two_modes:
                group._load(running, "latency")
                running.entry.pop("load")
                running.process.ask("texts", name="short", path=str(job.folder / "short.json"))
            for length in job.single:
                name = f"tokens_{length}"
                running.process.ask("texts", name=name, path=str(job.folder / f"{name}.json"))

        group.turn(running, prepare)
    rotate_calls(group, singles)


def rotate_calls(group: Group, points: dict[str, tuple[str, int, int]]) -> None:
    """Each point's calls in a few turns, peers in rotating order; every turn begins with a call that is not counted."""
    for number in range(LATENCY_TURNS):
        for point, (name, size, calls) in points.items():
            repeats = calls // LATENCY_TURNS
            for running in list(group.each(number)) if repeats else []:

                def run(
                    running: Running = running,
                    name: str = name,
                    size: int = size,
                    repeats: int = repeats,
                    turn: int = number,
                ) -> list[float]:
                    first = turn * repeats * size
                    running.process.ask("latency", name=name, size=size, repeats=1, first=first)
                    answer = running.process.ask("latency", name=name, size=size, repeats=repeats, first=first)
                    measured: list[float] = answer["calls"]
                    return measured

                running.calls.setdefault(point, []).extend(group.turn(running, run) or [])


def finish(group: Group, base: str) -> None:
    """Turn timings into figures."""
    job = group.job
    ours = group.alive[base].seconds if base in group.alive else {}
    for running in group.alive.values():
        sets = running.entry["sets"] = {}
        for texts in job.sets:
            seconds = running.seconds[texts.name]
            tokens = sum(texts.lengths)
            sets[texts.name] = {
                "seconds": [rounded(value) for value in seconds],
                "tokens_per_second": spread([tokens / value for value in seconds]),
                "texts_per_second": spread([len(texts.texts) / value for value in seconds]),
                "gflops": spread([job.flop[texts.name] / value / 1e9 for value in seconds]),
            }
            if texts.name in ours and running.peer.name != base:
                sets[texts.name]["ratio"] = ratios(ours[texts.name], seconds)
        running.entry["latency_ms"] = {name: percentiles(calls) for name, calls in running.calls.items() if calls}
        if running.idle_wall:
            running.entry["idle_cpu"] = round(running.idle_cpu / running.idle_wall, 3)


def gemm_summary(rates: list[dict[str, Any]]) -> dict[str, Any]:
    """Spread over the rounds, by precision and shape."""
    if not rates:
        return {}
    return {
        precision: {shape: spread([entry[precision][shape] for entry in rates]) for shape in rates[0][precision]}
        for precision in rates[0]
    }
