"""`bgert serve`: models over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgert.errors import EngineNotInstalledError

if TYPE_CHECKING:
    import argparse

    from bgert.serve.settings import Settings

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    from bgert.serve.settings import add_options as add_serve_options

    add_serve_options(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal."""
    from bgert.serve.settings import settings_from

    return _serve(settings_from(args))


def _serve(settings: Settings) -> int:
    try:
        from bgert.serve.server import run as run_server
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("httptools", "msgspec"):
            raise
        raise EngineNotInstalledError(
            f"`bgert serve` needs {error.name}: install the extra `serve` (README, Install)"
        ) from None
    return run_server(settings)
