"""bgert: BERT embedding models and rerankers without PyTorch, without Rust and without padding.

The names below are loaded when they are first asked for, so that the command can answer a signal from its start.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bgert.encoder import Encoder
    from bgert.errors import (
        BgertError,
        DeviceLostError,
        DeviceMemoryError,
        DeviceUnavailableError,
        DeviceWarning,
        EngineError,
        EngineNotInstalledError,
        InstructionWarning,
        IntegrityError,
        InvalidOptionError,
        InvalidTextError,
        ModelFolderError,
        ModelNotFoundError,
        NonFiniteOutputError,
        TruncationWarning,
        UnverifiedWarning,
    )
    from bgert.option_types import Device, Dtype, Mode, Pair, Precision, Truncation
    from bgert.reranker import Reranker
    from bgert.results import Embeddings, RunInfo, ScoreInfo, Scores
    from bgert.tokenizer import Tokenizer

__version__ = "0.1.0"

__all__ = [
    "BgertError",
    "Device",
    "DeviceLostError",
    "DeviceMemoryError",
    "DeviceUnavailableError",
    "DeviceWarning",
    "Dtype",
    "Embeddings",
    "Encoder",
    "EngineError",
    "EngineNotInstalledError",
    "InstructionWarning",
    "IntegrityError",
    "InvalidOptionError",
    "InvalidTextError",
    "Mode",
    "ModelFolderError",
    "ModelNotFoundError",
    "NonFiniteOutputError",
    "Pair",
    "Precision",
    "Reranker",
    "RunInfo",
    "ScoreInfo",
    "Scores",
    "Tokenizer",
    "Truncation",
    "TruncationWarning",
    "UnverifiedWarning",
    "__version__",
]

_HOMES = {
    "Encoder": "bgert.encoder",
    "Reranker": "bgert.reranker",
    "Tokenizer": "bgert.tokenizer",
    **dict.fromkeys(("Device", "Dtype", "Mode", "Pair", "Precision", "Truncation"), "bgert.option_types"),
    **dict.fromkeys(("Embeddings", "RunInfo", "ScoreInfo", "Scores"), "bgert.results"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES.get(name, "bgert.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
