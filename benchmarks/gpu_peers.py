"""The same checkpoint in PyTorch: transformers eager and SDPA, torch.compile, and sentence-transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpu_measure import clocked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["TorchModel", "cross_encoder", "cross_scores", "matmul_rate", "sentence_transformer", "torch_versions"]


def torch_versions() -> dict[str, str]:
    """Versions of PyTorch and of the CUDA it brings."""
    import torch

    return {"torch": torch.__version__, "torch_cuda": str(torch.version.cuda)}


def matmul_rate(device: str, half: bool, *, seconds: float) -> dict[str, float]:
    """TFLOP/s of square matrix products in float16 (float32 on the CPU): the best of some sizes."""
    import torch

    dtype = torch.float16 if half else torch.float32
    rates = {}
    for size in (4096, 8192, 16384) if half else (512, 1024):
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        out = torch.empty(size, size, device=device, dtype=dtype)

        def product(a: Any = a, b: Any = b, out: Any = out) -> None:
            for _ in range(5):
                torch.matmul(a, b, out=out)
            synchronize(device)

        rates[str(size)] = round(5 * 2 * size**3 / min(clocked(product, seconds=seconds)) / 1e12, 4)
    return rates


def synchronize(device: str) -> None:
    """Wait for a CUDA device."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


class TorchModel:
    """A checkpoint in transformers.

    Args:
        checkpoint: its folder.
        kind: `encoder` or `reranker`.
        device: of PyTorch.
        half: float16 weights, else float32.
        attention: transformers' `attn_implementation`.
        pooling: of encoders, `cls` or `mean`; vectors are normalised.
    """

    def __init__(
        self, checkpoint: Path, kind: str, device: str, *, half: bool, attention: str, pooling: str | None
    ) -> None:
        import torch
        import transformers

        self._torch, self.device, self._pooling = torch, device, pooling
        loader = transformers.AutoModel if kind == "encoder" else transformers.AutoModelForSequenceClassification
        model = loader.from_pretrained(str(checkpoint), attn_implementation=attention)
        model = model.to(device=device, dtype=torch.float16 if half else torch.float32)
        self.model: Any = model.eval()
        self.forward: Callable[..., Any] = self._forward

    def compile(self) -> None:
        """torch.compile in its default mode: max-autotune did not end in 100 s on an H200."""
        self.forward = self._torch.compile(self._forward)

    def _forward(self, ids: Any, mask: Any, types: Any) -> Any:
        output = self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)
        if self._pooling is None:
            return output.logits.float()
        hidden = output.last_hidden_state
        if self._pooling == "cls":
            rows = hidden[:, 0].float()
        else:
            weights = mask[:, :, None].float()
            rows = (hidden.float() * weights).sum(1) / weights.sum(1)
        return self._torch.nn.functional.normalize(rows, dim=1)

    def padded(self, ids: Sequence[NDArray[np.int32]], types: Sequence[NDArray[np.int32]] | None = None) -> Any:
        """Inputs on the device, padded to the longest text."""
        longest = max(map(len, ids))
        table = np.full((len(ids), longest), self.model.config.pad_token_id or 0, np.int64)
        kinds, mask = np.zeros_like(table), np.zeros_like(table)
        for row, text in enumerate(ids):
            table[row, : len(text)] = text
            mask[row, : len(text)] = 1
            if types is not None:
                kinds[row, : len(text)] = types[row]
        return tuple(self._torch.from_numpy(array).to(self.device) for array in (table, mask, kinds))

    def rows(self, ids: Sequence[Any], types: Sequence[Any] | None = None, budget: int = 8192) -> NDArray[np.float32]:
        """float32[n, columns], sorted and cut as bgert does, in the order given."""
        order = sorted(range(len(ids)), key=lambda n: -len(ids[n]))
        found: dict[int, Any] = {}
        while order:
            count = max(1, budget // len(ids[order[0]]))
            take, order = order[:count], order[count:]
            kinds = None if types is None else [types[n] for n in take]
            with self._torch.inference_mode():
                result = self._forward(*self.padded([ids[n] for n in take], kinds)).float().cpu().numpy()
            found.update(zip(take, result, strict=True))
        return np.stack([found[n] for n in range(len(ids))])

    def seconds(self, inputs: Any, *, seconds: float) -> float:
        """Seconds of one forward pass, the least of several; inputs are on the device already."""

        def once() -> None:
            with self._torch.inference_mode():
                self.forward(*inputs)
            synchronize(self.device)

        return min(clocked(once, seconds=seconds))

    def latency(self, inputs: Any, *, seconds: float) -> list[float]:
        """Seconds of each forward pass with its result copied to the host."""

        def once() -> None:
            with self._torch.inference_mode():
                self.forward(*inputs).cpu()

        return clocked(once, seconds=seconds, least=20)


def sentence_transformer(checkpoint: Path, device: str, half: bool, max_length: int) -> Any:
    """The checkpoint in sentence-transformers, in float16 on a GPU."""
    import sentence_transformers

    model = sentence_transformers.SentenceTransformer(str(checkpoint), device=device)
    model.max_seq_length = max_length
    return model.half() if half else model


def cross_encoder(checkpoint: Path, device: str, half: bool, max_length: int) -> Any:
    """The checkpoint as CrossEncoder, in float16 on a GPU."""
    import sentence_transformers

    model = sentence_transformers.CrossEncoder(str(checkpoint), device=device, max_length=max_length)
    if half:
        model.model.half()
    return model


def cross_scores(model: Any, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
    """Logits of a CrossEncoder, without its sigmoid."""
    import torch

    found = model.predict(list(pairs), batch_size=128, show_progress_bar=False, activation_fn=torch.nn.Identity())
    return np.asarray(found, np.float64)
