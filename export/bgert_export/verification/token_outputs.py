"""What graphs give for every token, beside the PyTorch checkpoint with its heads."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.errors import TruncationWarning
from bgert.model_folder import CallParity
from bgert_export.token_heads import FILES
from bgert_export.verification import texts as built_in
from bgert_export.verification.calls import Limits, beyond, differences
from bgert_export.verification.text_roles import role_inputs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bgert.model_folder import Manifest, TokenOutput
    from bgert_export.verification.torch_reference import TorchReference

    Array = NDArray[np.float32]

__all__ = ["Expected", "compare_token_outputs", "expected_token_outputs"]


@dataclass(frozen=True)
class Expected:
    """What PyTorch gives for one output."""

    output: TokenOutput
    texts: list[str]
    rows: Array
    """float32[n, d]: a sparse vector a text with all its zeros, or all vectors of all texts one after the other."""
    reference: str
    role: str | None = None
    """Of multi-vector models: which texts they are."""


def expected_token_outputs(reference: TorchReference, folder: Path, manifest: Manifest, prefix: str) -> list[Expected]:
    """Every output of a manifest on a few texts, of which the last is as long as the positions allow.

    Args:
        reference: the checkpoint.
        folder: holds the heads.
        manifest: says what they are.
        prefix: what goes before texts.
    """
    if manifest.roles:
        return [_of_role(reference, manifest, role) for role in manifest.roles]
    if not manifest.token_outputs:
        return []
    texts = [*built_in.few(), built_in.long_text(manifest.max_tokens + 8)]
    inputs = reference.tokenize([prefix + text for text in texts], None, manifest.max_tokens)
    states = reference.last_hidden_states(inputs)
    found = []
    for output in manifest.token_outputs:
        rows: list[Array] = []
        for entry, state in zip(inputs, states, strict=True):
            given = _head(folder, output, state, normalize=manifest.normalize)
            places = [
                place
                for place, token in enumerate(entry.ids)
                if place >= output.skip_first and token not in output.skip_ids
            ]
            rows.append(_sparse(entry.ids, given, places, output) if output.name == "sparse" else given[places])
        found.append(Expected(output, texts, np.concatenate(rows), reference.description))
    return found


def _of_role(reference: TorchReference, manifest: Manifest, name: str) -> Expected:
    """Every vector of queries or of documents."""
    import torch

    role, (output,) = manifest.roles[name], manifest.token_outputs
    texts = [*built_in.few(), built_in.long_text(manifest.max_tokens + 8)]
    inputs = role_inputs(reference, manifest, name, texts)
    rows = []
    for entry, state in zip(inputs, reference.last_hidden_states(inputs), strict=True):
        kept = [place for place, token in enumerate(entry.ids) if token not in role.skip_ids]
        with torch.inference_mode():
            rows.append(reference.vectors(torch.from_numpy(state)).numpy()[kept])
    return Expected(output, texts, np.concatenate(rows), reference.description, name)


def compare_token_outputs(
    model: Any, expected: list[Expected], prefix: str, limits: Limits
) -> tuple[list[CallParity], list[str]]:
    """Entries for the manifest, and failures in words.

    Args:
        model: the open Encoder.
        expected: from `expected_token_outputs`.
        prefix: what goes before texts.
        limits: most absolute error of vectors at length one, least and least mean cosine; None for any.
    """
    parities, failures = [], []
    for one in expected:
        name = one.output.name
        called = name if one.role is None else f"{name} of {one.role}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)  # of the text that is there to be cut
            before = {"prefix": prefix} if one.role is None else {"prompt": one.role}
            given = model.encode_outputs(one.texts, name, **before)
        found = given.sparse.toarray() if name == "sparse" else np.concatenate(given.multi_vector)
        error = float("inf")
        if found.shape == one.rows.shape:
            some = (found != 0).any(axis=1) | (one.rows != 0).any(axis=1)  # a text may have no token with a weight
            errors, cosines = differences("encoder", found[some], one.rows[some])
            error = float(errors.max(initial=0))
        if found.shape != one.rows.shape or (some.any() and beyond(limits, errors, cosines)):
            how = (
                f"by {error:.2e}" if found.shape == one.rows.shape else f"in shape, {found.shape} and {one.rows.shape}"
            )
            failures.append(f"the output {called} differs from PyTorch {how}")
        parities.append(CallParity(called, one.reference, len(one.texts), error))
    return parities, failures


def _head(folder: Path, output: TokenOutput, state: Array, *, normalize: bool) -> Array:
    """A head over the last hidden states [T, H] of a text, by torch."""
    import torch

    stored = torch.load(folder / FILES[output.name], map_location="cpu", weights_only=True)
    with torch.inference_mode():
        rows = torch.nn.functional.linear(torch.from_numpy(state), stored["weight"].float(), stored["bias"].float())
        if output.name == "sparse":
            rows = torch.relu(rows)
        elif normalize:
            rows = torch.nn.functional.normalize(rows, dim=-1)
    found: Array = rows.numpy()
    return found


def _sparse(ids: tuple[int, ...], weights: Array, places: list[int], output: TokenOutput) -> Array:
    row = np.zeros((1, output.size or 0), np.float32)
    for place in places:
        row[0, ids[place]] = max(row[0, ids[place]], weights[place, 0])
    return row
