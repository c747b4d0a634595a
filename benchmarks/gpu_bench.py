"""What every stage of the GPU benchmark is given: its options, its models, and the results so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bgert import Encoder
from bgert.backends.cuda.backend import OnnxCudaBackend
from bgert.model_folder import Manifest
from gpu_peers import TorchModel

if TYPE_CHECKING:
    from pathlib import Path

    from bgert.option_types import Device

__all__ = ["MAX_LOGIT_ERROR", "MEAN_COSINE", "MIN_COSINE", "Bench"]

# Cosines and logits against the float32 checkpoint, as in bgert_export.verification.verify.
MIN_COSINE, MEAN_COSINE, MAX_LOGIT_ERROR = 0.9995, 0.9999, 0.02


@dataclass
class Bench:
    """Options, and the results so far."""

    work: Path
    tokenizer: Path
    device: Device
    torch_device: str
    geometry: str
    rerankers: bool
    rehearsal: bool
    results: dict[str, Any]

    @property
    def half(self) -> bool:
        """Whether PyTorch computes in float16."""
        return self.torch_device != "cpu"

    @property
    def on_gpu(self) -> bool:
        """Whether bgert runs on a GPU."""
        return self.device != "cpu"

    def seconds(self, on_gpu: float) -> float:
        """How long to measure one thing."""
        return 0.05 if self.rehearsal else on_gpu

    def names(self) -> dict[str, str]:
        """Kind to the geometry that is measured."""
        return {"encoder": self.geometry} | ({"reranker": "bert-reranker"} if self.rerankers else {})

    def checkpoint(self, kind: str) -> Path:
        """Checkpoint of the encoder or reranker."""
        return self.work / f"{self.names()[kind]}-checkpoint"

    def folder(self, kind: str) -> Path:
        """Model folder of the encoder or reranker."""
        return self.work / self.names()[kind]

    def backend(self, **options: Any) -> Any:
        """The encoder's backend; options are those of OnnxCudaBackend."""
        return self.backend_of(self.folder("encoder"), **options)

    def backend_of(self, folder: Path, **options: Any) -> Any:
        """The backend of any encoder's folder; on the CPU the options mean nothing."""
        if not self.on_gpu:
            return Encoder(folder, device="cpu")._runner.backend
        manifest = Manifest.read(folder)
        graph = manifest.graph("cuda")
        if graph is None:
            raise SystemExit("the folder has no cuda graph")
        number = int(self.device.partition(":")[2] or 0)
        pad = manifest.architecture["pad_token_id"]
        return OnnxCudaBackend(
            folder, graph, device=number, pad_token_id=pad, max_tokens=manifest.max_tokens, **options
        )

    def torch_encoder(self, attention: str) -> TorchModel:
        """The encoder in transformers, in half precision on a GPU."""
        return TorchModel(
            self.checkpoint("encoder"), "encoder", self.torch_device, half=self.half, attention=attention, pooling="cls"
        )
