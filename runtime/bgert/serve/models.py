"""The models of a server: loading them, finding one by name, and their texts as rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.batching import PackedBatch
from bgert.encoder import Encoder
from bgert.errors import InvalidOptionError, ModelFolderError
from bgert.exported_models import targets_for
from bgert.hub import locate
from bgert.model_folder import Manifest
from bgert.paths import user_path
from bgert.reranker import Reranker
from bgert.serve.refusal import Refusal
from bgert.serve.worker import Engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bgert.model import Model
    from bgert.serve.cores import Cores
    from bgert.serve.settings import Settings
    from bgert.tokenizer import TokenBatch

__all__ = ["Served", "load", "pick"]

CLASSES: dict[str, type[Encoder | Reranker]] = {"encoder": Encoder, "reranker": Reranker}
TASKS = {"encoder": "embeddings", "reranker": "reranking"}


@dataclass(frozen=True, eq=False)
class Served:
    """One model with its engine."""

    name: str
    aliases: frozenset[str]
    """Other names that clients may use: the folder's and the hub's."""
    model: Model
    engine: Engine

    @property
    def kind(self) -> str:
        """`encoder` or `reranker`."""
        return self.model.kind

    @property
    def manifest(self) -> Manifest:
        """What the folder says of itself."""
        return self.model.manifest

    def tokenize(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        max_length: int | None = None,
        truncation: str = "longest_first",
        side: str = "right",
    ) -> TokenBatch:
        """Texts or pairs to token ids on one core, cut at the model's limit."""
        return self.model.tokenizer.encode_batch(
            texts,
            pairs,
            max_length=max_length or self.model.max_length,
            truncation=truncation,
            truncation_side=side,
            threads=1,
        )

    def count(self, text: str) -> int:
        """Tokens of a text without special ones."""
        return int(self.model.tokenizer.count([text], add_special_tokens=False, threads=1)[0])

    def prefix(self, prompt: str | None) -> str:
        """The text that a prompt puts before an input; None for the model's default prompt.

        Raises:
            Refusal: the model has no prompt of this name.
        """
        try:
            return self.model.prompt_text(prompt)
        except InvalidOptionError as error:
            raise Refusal("validation", str(error), param="prompt_name") from None

    def packed(self, rows: Sequence[Sequence[int]], param: str) -> PackedBatch:
        """Rows of this model's own token ids, special tokens as the client gave them.

        Raises:
            Refusal: an id is none of the model's, or a row is empty or too long.
        """
        size = int(self.manifest.architecture["vocab_size"])
        for index, row in enumerate(rows):
            if not row:
                raise Refusal("empty", f"{param} {index} is empty", param=param)
            if not 0 <= min(row) <= max(row) < size:
                raise Refusal("validation", f"{param} {index} has an id outside 0 to {size - 1}", param=param)
            if len(row) > self.model.max_length:
                raise Refusal(
                    "validation",
                    f"{param} {index} has {len(row)} token ids, {self.name} takes {self.model.max_length}",
                    param=param,
                )
        cu_seqlens = np.zeros(len(rows) + 1, np.int32)
        np.cumsum([len(row) for row in rows], out=cu_seqlens[1:])
        ids = np.array([number for row in rows for number in row], np.int32)
        return PackedBatch(ids, cu_seqlens, np.zeros_like(ids))


def load(number: int, settings: Settings, cores: Cores) -> Served:
    """Open the folder of that number in the settings; its engine shares the cores with the others.

    Raises:
        BgertError: as `Encoder` and `Reranker` do.
    """
    given = settings.folders[number]
    folder = locate(given, targets_for(settings.device, settings.precision))
    manifest = Manifest.read(folder)
    if manifest.roles:
        raise ModelFolderError(
            f"{folder} gives a vector for every token, and the server has no reply for those: use "
            "bgert.Encoder(...).encode_outputs"
        )
    options: dict[str, Any] = {"device": settings.device, "precision": settings.precision, "threads": settings.threads}
    model = CLASSES[manifest.kind](folder, **options)
    path = user_path(given)
    # As it was named, also where that is a link to a folder of another name.
    named = path if path.name not in ("", "..") else path.resolve()
    base = named.name if path.exists() else given
    name = settings.name[number] if settings.name else base
    aliases = {base, str(manifest.source.get("id") or base)}
    return Served(name, frozenset(aliases - {name}), model, Engine(model.backend, manifest.columns, name, cores))


def pick(models: Sequence[Served], kind: str, name: str | None) -> Served:
    """The model of a kind that a request means.

    A server of one such model serves any name with it, as other servers do, and says in the reply which it was.

    Raises:
        Refusal: no model of the kind, several and none named, or a name that none of several has.
    """
    of_kind = [served for served in models if served.kind == kind]
    if name:
        for served in models:
            if name == served.name or name in served.aliases:
                if served.kind != kind:
                    raise Refusal("wrong_model", f"{served.name} is no model for {TASKS[kind]}", param="model")
                return served
    names = ", ".join(served.name for served in of_kind)
    if not of_kind:
        have = ", ".join(f"{served.name} ({served.kind})" for served in models)
        raise Refusal("wrong_model", f"no model for {TASKS[kind]} is served here (there is: {have})", param="model")
    if len(of_kind) == 1:
        return of_kind[0]
    if not name:
        raise Refusal("validation", f"several models do {TASKS[kind]}: name one of {names}", param="model")
    raise Refusal("model_not_found", f"there is no model {name!r} here: use one of {names}", param="model")
