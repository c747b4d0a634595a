"""What the PyTorch checkpoint computes, through transformers, in float32: the truth that graphs are compared with."""

from __future__ import annotations

import importlib.util
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.errors import install_extra
from bgert.progress import progress_bar
from bgert_export.errors import CheckpointError, ExtraNotInstalledError
from bgert_export.pooling import MULTI_VECTOR, SPLADES, modes_of
from bgert_export.torch_model import MASKED_LM, load_model
from bgert_export.verification.torch_modules import dense_layer, pool, splade

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert_export.verification.native_classes import NativeClass

    Array = NDArray[np.float32]

__all__ = ["Tokens", "TorchReference", "quiet", "require_torch"]

_TOKEN_BUDGET = 2048  # keeps activations small beside the weights of a large model


@dataclass(frozen=True)
class Tokens:
    """One input of the model."""

    ids: tuple[int, ...]
    types: tuple[int, ...]
    seen: int | None = None
    """How many tokens attention sees, from the first; None for all."""


def require_torch() -> None:
    """Raise ExtraNotInstalledError unless what verification needs is installed."""
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            raise ExtraNotInstalledError(
                f"verification needs {name}, which is not installed: {install_extra('verify')}, or pass --no-verify"
            )


class TorchReference:
    """A checkpoint as transformers runs it.

    Args:
        folder: the checkpoint.
        kind: `encoder` or `reranker`.
        token_types: whether the network reads types of tokens.
        pooling: as `bgert_export.pooling`; None for rerankers.
        normalize: L2-normalise the pooled rows.
        dense: folders of sentence-transformers' modules Dense, which come between the two.
        num_labels: logits of a reranker's classifier; None for config.json's.
        native: the class that runs it where transformers does not read its config.json.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kind: str,
        token_types: bool,
        pooling: str | None,
        normalize: bool,
        dense: Sequence[Path] = (),
        num_labels: int | None = None,
        native: NativeClass | None = None,
    ) -> None:
        require_torch()
        import torch
        import transformers

        self._torch = torch
        self._pooling = pooling
        self._normalize = normalize
        self._known: dict[Tokens, Array] = {}
        self.description = f"transformers {transformers.__version__}, torch {torch.__version__}, float32"
        self._token_types = token_types
        with quiet():
            try:
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
            except Exception as error:  # transformers raises whatever its parts raise
                reason = " ".join(str(error).split()) or type(error).__name__
                raise CheckpointError(f"transformers cannot load {folder}: {reason}") from error
            self._model = load_model(folder, MASKED_LM if pooling in SPLADES else kind, num_labels, native=native)
        self._dense = [dense_layer(path) for path in dense]

    def tokenize(self, texts: Sequence[str], second: Sequence[str] | None, max_length: int) -> list[Tokens]:
        """Inputs for texts, or for pairs; too long ones are cut, of pairs the longer side first."""
        with quiet():
            encoded = self._tokenizer(
                list(texts),
                list(second) if second is not None else None,
                truncation="longest_first",
                max_length=max_length,
                return_attention_mask=False,
            )
        # A tokenizer that gives no types leaves the model to take 0; a model without them reads none.
        types = encoded.get("token_type_ids") if self._token_types else None
        types = types or [[0] * len(ids) for ids in encoded["input_ids"]]
        columns = zip(encoded["input_ids"], types, strict=True)
        return [Tokens(tuple(ids), tuple(types)) for ids, types in columns]

    def run(self, inputs: Sequence[Tokens], *, show_progress: bool = False) -> Array:
        """float32[n, columns]: pooled vectors, or logits, perhaps with a bar.

        Raises:
            CheckpointError: the checkpoint itself yields NaN or infinity.
        """
        todo = sorted({entry for entry in inputs if entry not in self._known}, key=lambda entry: len(entry.ids))
        total = sum(len(entry.ids) for entry in todo)
        with progress_bar(total, show_progress, unit="token", optional=True) as advance:
            while todo:
                count = max(1, _TOKEN_BUDGET // len(todo[-1].ids))
                batch, todo = todo[-count:], todo[:-count]
                for entry, row in zip(batch, self._forward(batch), strict=True):
                    self._known[entry] = row
                if advance is not None:
                    advance(sum(len(entry.ids) for entry in batch))
        rows = np.stack([self._known[entry] for entry in inputs])
        if not np.isfinite(rows).all():
            raise CheckpointError(
                "the PyTorch checkpoint itself yields NaN or infinity: there is nothing to compare with"
            )
        return rows

    def last_hidden_states(self, inputs: Sequence[Tokens]) -> list[Array]:
        """float32[T, H] of each input's own tokens, as the network gives them."""
        found = []
        for entry in inputs:
            ids, mask, given = self._padded([entry])
            with self._torch.inference_mode(), quiet():
                output = self._model(input_ids=ids, attention_mask=mask, **given)
            found.append(output.last_hidden_state[0].float().numpy())
        return found

    def vectors(self, states: Any) -> Any:
        """The dense layers over hidden states [..., H], normalised where the model does: of multi-vector models."""
        for layer in self._dense:
            states = layer(states)
        return self._torch.nn.functional.normalize(states, dim=-1) if self._normalize else states

    def _forward(self, batch: Sequence[Tokens]) -> Array:
        torch = self._torch
        ids, mask, given = self._padded(batch)
        with torch.inference_mode(), quiet():
            output = self._model(input_ids=ids, attention_mask=mask, **given)
            if self._pooling is None:
                result = output.logits
            elif self._pooling in SPLADES:
                result = splade(output.logits, mask, self._pooling)
            elif self._pooling == MULTI_VECTOR:
                result = pool(self.vectors(output.last_hidden_state), mask, "mean")
            else:
                rows = output.last_hidden_state
                result = torch.cat([pool(rows, mask, mode) for mode in modes_of(self._pooling)], dim=1)
            if self._pooling != MULTI_VECTOR:
                result = self.vectors(result)
        found: Array = result.float().numpy()
        return found

    def _padded(self, batch: Sequence[Tokens]) -> tuple[Any, Any, dict[str, Any]]:
        """Ids and mask [B, S], and the token types where the model reads any."""
        torch = self._torch
        longest = max(len(entry.ids) for entry in batch)
        pad = self._model.config.pad_token_id or 0
        ids = torch.full((len(batch), longest), pad)
        types, mask = torch.zeros_like(ids), torch.zeros_like(ids)
        for row, entry in enumerate(batch):
            count = len(entry.ids)
            ids[row, :count] = torch.tensor(entry.ids)
            types[row, :count] = torch.tensor(entry.types)
            mask[row, : count if entry.seen is None else entry.seen] = 1
        return ids, mask, {"token_type_ids": types} if self._token_types else {}


@contextmanager
def quiet() -> Iterator[None]:
    """No notices of transformers: what it says of unused heads is no news, and bars belong to the caller."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
