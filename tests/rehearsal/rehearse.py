"""Runs cases on device `cuda` and writes what came out: `python rehearse.py CASES.json FOUND.json`, by run.py."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

LOG = Path(tempfile.mkdtemp()) / "cuda.log"
os.environ["FAKE_CUDA_LOG"] = str(LOG)

from bgert.backends.cuda.backend import OPERATORS, OnnxCudaBackend  # noqa: E402
from bgert.backends.cuda.open_session import PROVIDER  # noqa: E402
from bgert.batching import PackedBatch  # noqa: E402
from bgert.model_folder import Manifest  # noqa: E402


def packed(texts: list[list[int]]) -> PackedBatch:
    """A batch of token ids."""
    cuts = np.cumsum([0, *(len(ids) for ids in texts)]).astype(np.int32)
    ids = np.concatenate(texts).astype(np.int32)
    return PackedBatch(ids, cuts, np.zeros_like(ids))


def rehearse(case: dict[str, Any]) -> dict[str, Any]:
    """One model, its texts together and one by one."""
    LOG.write_text("")
    folder = Path(case["folder"])
    manifest = Manifest.read(folder)
    graph = manifest.graph("cuda")
    assert graph is not None
    backend = OnnxCudaBackend(
        folder, graph, device=0, pad_token_id=0, max_tokens=case["most"], token_budget=case["most"],
        graphs=case["graphs"],
    )  # fmt: skip
    assert backend.info.engine.endswith("bgert operators")
    rows = {"together": backend.run(packed(case["ids"])).tolist()}
    opened = LOG.read_text().count("cudaGraphLaunch")
    rows["alone"] = [backend.run(packed([ids]))[0].tolist() for ids in case["ids"]]
    log = LOG.read_text()
    return {
        "rows": rows,
        "graph_launches": log.count("cudaGraphLaunch") - opened,
        "kernels_of_onnxruntime": log.count("\nkernel "),
    }


def outcome(case: dict[str, Any]) -> str:
    """What a graph of one node does: `runs`, or how it is refused."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.register_custom_ops_library(str(OPERATORS))
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(case["path"], options, providers=[PROVIDER])
        session.disable_fallback()
        session.run(None, {})
    except Exception as error:
        return str(error)
    return "runs"


def main() -> None:
    """All cases."""
    asked = json.loads(Path(sys.argv[1]).read_text())
    outcomes = [outcome(case) for case in asked["misfits"]]
    found = {"misfits": outcomes, "models": [rehearse(case) for case in asked["models"]]}
    Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
