"""bgert: BERT embedding models and rerankers without PyTorch, without Rust and without padding."""

from bgert.encoder import Encoder
from bgert.errors import (
    BgertError,
    DeviceLostError,
    DeviceMemoryError,
    DeviceUnavailableError,
    DeviceWarning,
    EngineError,
    EngineNotInstalledError,
    IntegrityError,
    InvalidOptionError,
    InvalidTextError,
    ModelFolderError,
    ModelNotFoundError,
    NonFiniteOutputError,
    TruncationWarning,
)
from bgert.reranker import Reranker
from bgert.tokenizer import Tokenizer

__version__ = "0.1.0"

__all__ = [
    "BgertError",
    "DeviceLostError",
    "DeviceMemoryError",
    "DeviceUnavailableError",
    "DeviceWarning",
    "Encoder",
    "EngineError",
    "EngineNotInstalledError",
    "IntegrityError",
    "InvalidOptionError",
    "InvalidTextError",
    "ModelFolderError",
    "ModelNotFoundError",
    "NonFiniteOutputError",
    "Reranker",
    "Tokenizer",
    "TruncationWarning",
    "__version__",
]
