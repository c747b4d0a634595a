"""The JSON of a run: read, put together, written in one step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "begin", "begin_gpu", "gpu", "merge_group", "missing_peers", "newest", "read", "resumed", "write"]

SCHEMAS = {"cpu": 2, "gpu": 1, "gpu-beside": 1}  # by kind; a result that names no kind is a CPU's
BESIDE = ("geometries", "rerankers", "trained", "torch_compile")  # stages that a run of its own may have measured
RESULTS = Path(__file__).resolve().parent / "results"


def begin(date: str, commit: str, machine: dict[str, Any]) -> dict[str, Any]:
    """An empty result."""
    head = {"schema": SCHEMAS["cpu"], "kind": "cpu", "date": date, "commit": commit, "machine": machine}
    return {**head, "environments": {}, "models": {}, "tokenizer": None}


def begin_gpu(date: str, commit: str, *, rehearsal: bool) -> dict[str, Any]:
    """The head of a result of gpu.py, which every stage adds its own key to."""
    return {"schema": SCHEMAS["gpu"], "kind": "gpu", "rehearsal": rehearsal, "date": date, "commit": commit}


def kind_of(path: Path) -> str:
    """A key of SCHEMAS: what was measured, as the file itself says."""
    return str(json.loads(path.read_text(encoding="utf-8")).get("kind", "cpu"))


def read(path: Path, kind: str = "cpu") -> dict[str, Any]:
    """A result.

    Raises:
        ValueError: it has another kind or schema, or is a rehearsal.
    """
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if (found := result.get("kind", "cpu")) != kind:
        raise ValueError(f"{path} is a result of kind {found}, not {kind}")
    if result.get("schema") != SCHEMAS[kind]:
        raise ValueError(f"{path} has schema {result.get('schema')}, not {SCHEMAS[kind]}: measure again")
    if result.get("rehearsal"):
        raise ValueError(f"{path} is a rehearsal: its numbers mean nothing")
    return result


def gpu(folder: Path = RESULTS) -> dict[str, Any]:
    """The newest result of gpu.py, with the stages that it lacks from what was measured beside it, if anything was.

    Raises:
        ValueError: what was measured beside it is of another commit or GPU.
    """
    result = read(newest(folder, "gpu"), "gpu")
    lacking = {name for name in BESIDE if "error" in result.get(name, {"error": ""})}
    if not lacking:
        return result
    beside = read(newest(folder, "gpu-beside"), "gpu-beside")
    same = all(result[key] == beside[key] for key in ("date", "commit"))
    if not same or not result["machine"]["gpu"].startswith(beside["machine"]["gpu"]):
        raise ValueError(f"{', '.join(sorted(lacking))}: not measured on {result['date']} at {result['commit']}")
    return result | {name: beside[name] for name in lacking}


def write(result: dict[str, Any], path: Path) -> None:
    """Write through a temporary file, so that a run that is stopped leaves the last complete state."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def resumed(path: Path, commit: str, machine: dict[str, Any]) -> dict[str, Any]:
    """An earlier result that new figures may join.

    Raises:
        ValueError: it was measured on another commit or machine.
    """
    result = read(path)
    if result["commit"] != commit or result["machine"] != machine:
        raise ValueError(f"{path} is of commit {result['commit']} or another machine: leave --resume out")
    return result


def missing_peers(result: dict[str, Any], model: str, names: list[str]) -> list[str]:
    """Those that have no figures for a model yet; one that failed is tried again."""
    entries = result["models"].get(model, {}).get("peers", {})
    return [name for name in names if name not in entries or "error" in entries[name]]


def merge_group(result: dict[str, Any], model: str, facts: dict[str, Any], measured: dict[str, Any]) -> None:
    """Add a group's figures. An entry without an error stays: bgert, which runs in every group, is that of the first.

    A ratio needs no more than its own group, since bgert took its turns there.
    """
    entry = result["models"].setdefault(model, {**facts, "gemm": {}, "peers": {}})
    entry["gemm"] = entry["gemm"] or measured["gemm"]
    for name, found in measured["peers"].items():
        if name not in entry["peers"] or "error" in entry["peers"][name]:
            entry["peers"][name] = found


def newest(folder: Path = RESULTS, kind: str = "cpu") -> Path:
    """The newest result of a kind; names begin with the date.

    Raises:
        FileNotFoundError: there is none.
    """
    found = [path for path in folder.glob("*.json") if kind_of(path) == kind]
    if not found:
        raise FileNotFoundError(f"no result of kind {kind} in {folder}")
    return max(found)
