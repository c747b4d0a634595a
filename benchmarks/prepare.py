"""What a measurement needs on disk and who runs it: environments, converted models, reference outputs."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

import models
from measure import Job, task_of, vectors_path
from peer_environment import CURRENT, Environment, PeerEnvironments
from peer_list import EXPORTERS, REFERENCE, Peer
from peer_process import PeerProcess, cold_start
from quality import against_reference, ndcg_at_10

if TYPE_CHECKING:
    from bgert.evaluation import Collection
    from bgert_export.architecture import Architecture

__all__ = ["Workshop", "free_gib"]

COMPARED = ("mixed", "passages", "short", "long")
PACKAGES = ("bgert", "numpy", "onnxruntime", "tokenizers", "torch", "transformers", "sentence-transformers")


class Workshop:
    """The folder that a run works in.

    Args:
        folder: environments, checkpoints, converted models and logs; kept from run to run.
        threads: cores that every peer may use.
        current: use the environment that runs this for all peers (the quick mode).
    """

    log: IO[str]

    def __init__(self, folder: Path, threads: int, *, current: bool) -> None:
        self.folder, self.threads, self.current = folder, threads, current
        folder.mkdir(parents=True, exist_ok=True)
        self.environments = PeerEnvironments(folder / "venvs", folder / "pip.log")
        self._exported: set[str] = set()
        self._references: dict[tuple[str, str], Any] = {}

    def __enter__(self) -> Workshop:
        self.log = (self.folder / "peers.log").open("a")
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()

    def say(self, line: str) -> None:
        """Progress for whoever watches."""
        print(line, file=sys.stderr, flush=True)

    def tokenizer(self, checkpoint: Path, max_length: int) -> Any:
        """Hugging Face's tokenizer, which counts tokens."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
        return tokenizer

    def environment(self, name: str, known: dict[str, Any]) -> Environment:
        """An environment; what it holds is noted for the results."""
        if self.current:
            versions = {package: metadata.version(package) for package in PACKAGES}
            environment = Environment(CURRENT.python, versions, None, None)
        else:
            environment = self.environments.get(name)
        known[name] = {key: value for key, value in asdict(environment).items() if key != "python"}
        return environment

    def task(self, model: models.Model, checkpoint: Path, architecture: Architecture) -> dict[str, Any]:
        """What every adapter is told of a model."""
        texts = self.folder / "texts" / model.name
        texts.mkdir(parents=True, exist_ok=True)
        converted = self.folder / "converted" / model.name
        return {
            "model": model.name,
            "kind": model.kind,
            "checkpoint": str(checkpoint),
            "exports": {name: str(converted / name) for name in ("bgert", *EXPORTERS)},
            "texts": str(texts),
            "pooling": model.pooling,
            "dimensions": architecture.hidden_size,
            "pad_id": architecture.pad_token_id,
            "max_length": model.max_length,
            "threads": self.threads,
        }

    def gemm(self, architecture: Architecture) -> tuple[str, dict[str, Any]]:
        """Who measures the bare rate, and of what."""
        shape = {"hidden": architecture.hidden_size, "inner": architecture.intermediate_size}
        return CURRENT.python, {**shape, "threads": self.threads}

    def ready(self, peer: Peer, model: models.Model, task: dict[str, Any], known: dict[str, Any]) -> str:
        """The peer's interpreter, once its environment and what it loads exist.

        Raises:
            EnvironmentFailedError: pip failed.
            PeerFailedError: the conversion failed.
        """
        environment = self.environment(peer.environment, known)
        for name in peer.exports:
            self._convert(name, model, task)
        return environment.python

    def _convert(self, name: str, model: models.Model, task: dict[str, Any]) -> None:
        target = Path(task["exports"][name])
        done = target.with_suffix(".done")
        if name == "bgert":  # always anew: the exporter is part of what is measured
            if str(target) not in self._exported:
                shutil.rmtree(target, ignore_errors=True)
                target.parent.mkdir(parents=True, exist_ok=True)
                models.export_bgert(Path(task["checkpoint"]), model, target, fp32_alone=self.current)
                self._exported.add(str(target))
            return
        if done.exists():
            return
        environment, adapter, options = EXPORTERS[name]
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        python = self.environments.get(environment).python
        with PeerProcess(python, adapter, self.log, limit=600) as process:
            process.ask("export", task=task | {"options": options})
        done.touch()

    def quality(self, job: Job, peer: Peer, collection: Collection | None) -> dict[str, Any]:
        """Against PyTorch on one set, and nDCG@10 where there is a collection."""
        name = next(name for name in COMPARED if name in {texts.name for texts in job.sets})
        found: dict[str, Any] = {"texts": name}
        outputs = np.load(vectors_path(job.folder, peer.name, name))
        found |= against_reference(outputs, self._reference(job, name))
        if collection is not None and peer.searches:
            documents, queries = (
                np.load(vectors_path(job.folder, peer.name, f"cranfield_{part}")) for part in ("documents", "queries")
            )
            found["ndcg_at_10"] = ndcg_at_10(collection, documents, queries)
        return found

    def _reference(self, job: Job, name: str) -> Any:
        key = (str(job.folder), name)
        if key not in self._references:
            path = vectors_path(job.folder, REFERENCE.name, name)
            python = CURRENT.python if self.current else self.environments.get(REFERENCE.environment).python
            with PeerProcess(python, REFERENCE.adapter, self.log, job.limit) as process:
                process.ask("load", task=task_of(job, REFERENCE, "throughput"))
                process.ask("texts", name=name, path=str(job.folder / f"{name}.json"))
                process.ask("encode", name=name, vectors=str(path))
            self._references[key] = np.load(path)
        return self._references[key]

    def cold_start(self, job: Job, peer: Peer) -> float:
        """Seconds from a new process to the first vector, the least of three: files are cached, the rest is not."""
        task = task_of(job, peer, "latency")
        starts = 1 if self.current else 3
        return min(cold_start(job.python[peer.name], peer.adapter, task, job.log, job.limit) for _ in range(starts))


def free_gib() -> float:
    """Memory that can be had without swapping (Linux)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 2**20
    raise OSError("/proc/meminfo has no MemAvailable")
