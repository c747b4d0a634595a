"""The JSON of a run: read, put together, written in one step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "begin", "merge_group", "missing_peers", "newest", "read", "resumed", "write"]

SCHEMA = 2
RESULTS = Path(__file__).resolve().parent / "results"


def begin(date: str, commit: str, machine: dict[str, Any]) -> dict[str, Any]:
    """An empty result."""
    head = {"schema": SCHEMA, "date": date, "commit": commit, "machine": machine}
    return {**head, "environments": {}, "models": {}, "tokenizer": None}


def read(path: Path) -> dict[str, Any]:
    """A result.

    Raises:
        ValueError: it has another schema.
    """
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if result.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {result.get('schema')}, not {SCHEMA}: measure again")
    return result


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


def newest(folder: Path = RESULTS) -> Path:
    """The newest result; names begin with the date."""
    return max(folder.glob("*.json"))
