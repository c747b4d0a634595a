"""Who is measured: each peer with its environment, its adapter and what it needs exported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["EXPORTERS", "PEERS", "REFERENCE", "Peer", "choose"]

BOTH = ("encoder", "reranker")


@dataclass(frozen=True)
class Peer:
    """One row of the tables.

    Attributes:
        name: in results and on the command line.
        title: in tables.
        environment: `peers/<environment>.txt` lists what its virtual environment holds.
        adapter: `peers/<adapter>.py` runs it.
        precision: what it computes in; None where the engine decides and tells.
        exports: converted models it loads, keys of `EXPORTERS`.
        kinds: models it can run.
        two_modes: it is loaded anew, with other settings, for single texts.
        options: for the adapter.
    """

    name: str
    title: str
    environment: str
    adapter: str
    precision: str | None = "fp32"
    exports: tuple[str, ...] = ()
    kinds: tuple[str, ...] = BOTH
    two_modes: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def searches(self) -> bool:
        """Whether its vectors search a judged collection: what computes in float32 finds what PyTorch finds."""
        return self.precision != "fp32" or self.name in ("bgert", "sentence-transformers")


PEERS = {
    peer.name: peer
    for peer in (
        Peer("bgert", "bgert", "bgert", "bgert", exports=("bgert",), two_modes=True, options={"precision": "fp32"}),
        Peer(
            "bgert-bf16",
            "bgert bf16",
            "bgert",
            "bgert",
            precision="bf16",
            exports=("bgert",),
            two_modes=True,
            options={"precision": "bf16"},
        ),
        Peer(
            "bgert-int8",
            "bgert int8",
            "bgert",
            "bgert",
            precision="int8",
            exports=("bgert",),
            two_modes=True,
            options={"precision": "int8"},
        ),
        Peer(
            "sentence-transformers",
            "sentence-transformers, torch",
            "sentence_transformers",
            "sentence_transformers",
            options={"backend": "torch"},
        ),
        Peer(
            "sentence-transformers-onnx",
            "sentence-transformers, ONNX",
            "sentence_transformers_onnx",
            "sentence_transformers",
            exports=("onnx",),
            options={"backend": "onnx"},
        ),
        Peer(
            "sentence-transformers-onnx-o3",
            "sentence-transformers, ONNX O3",
            "sentence_transformers_onnx",
            "sentence_transformers",
            exports=("onnx",),
            options={"backend": "onnx", "file": "onnx/model_O3.onnx"},
        ),
        Peer(
            "sentence-transformers-openvino",
            "sentence-transformers, OpenVINO",
            "sentence_transformers_openvino",
            "sentence_transformers",
            precision=None,
            exports=("openvino",),
            options={"backend": "openvino"},
        ),
        Peer(
            "openvino-f32",
            "OpenVINO by hand, f32",
            "openvino_by_hand",
            "openvino_by_hand",
            exports=("openvino",),
            two_modes=True,
            options={"precision": "f32"},
        ),
        Peer(
            "openvino-default",
            "OpenVINO by hand, its own precision",
            "openvino_by_hand",
            "openvino_by_hand",
            precision=None,
            exports=("openvino",),
            two_modes=True,
            options={"precision": "default"},
        ),
        Peer("fastembed", "fastembed", "fastembed", "fastembed", exports=("onnx",)),
        Peer("ctranslate2", "CTranslate2", "ctranslate2", "ctranslate2", exports=("ctranslate2",), kinds=("encoder",)),
        Peer("optimum-onnx", "optimum-onnx", "optimum_onnx", "optimum_onnx", exports=("onnx",), kinds=("encoder",)),
        Peer("torch-compile", "transformers, torch.compile", "transformers", "torch_compile", kinds=("encoder",)),
        Peer("flag-embedding", "FlagEmbedding", "flag_embedding", "flag_embedding"),
        Peer("infinity", "infinity-emb, torch", "infinity", "infinity", kinds=("encoder",)),
    )
}

# Truth for cosines, run in the environment of sentence-transformers and never timed.
REFERENCE = Peer("reference", "transformers, fp32", "transformers", "reference")

# Converted model: the environment and adapter whose `export` writes it. bgert's folder is written by `bgert export`.
EXPORTERS = {
    "onnx": ("sentence_transformers_onnx", "sentence_transformers", {"backend": "onnx"}),
    "openvino": ("sentence_transformers_openvino", "sentence_transformers", {"backend": "openvino"}),
    "ctranslate2": ("ctranslate2_export", "ctranslate2", {}),
}


def choose(names: str) -> list[Peer]:
    """Peers by name, comma-separated, bgert first since ratios are to it.

    Raises:
        ValueError: an unknown name.
    """
    everybody = list(PEERS)
    wanted = [name for word in names.split(",") for name in (everybody if word == "all" else [word])]
    if unknown := sorted(set(wanted) - PEERS.keys()):
        raise ValueError(f"unknown peer {unknown[0]!r}: there are {', '.join(PEERS)}")
    return [PEERS[name] for name in dict.fromkeys(["bgert", *wanted])]
