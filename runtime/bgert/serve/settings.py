"""What `bgert serve` can be told, on the command line or as `BGERT_*` variables."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgert.errors import InputFileError, InvalidOptionError
from bgert.option_types import DEVICE_NAMES

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

__all__ = ["Settings", "add_options", "settings_from"]


@dataclass(frozen=True)
class Settings:
    """The options of a server. A field is the option of its name, `--max-body`, and the variable `BGERT_MAX_BODY`."""

    folders: tuple[str, ...]
    name: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8080
    uds: str | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    api_key_file: str | None = None
    token_ids: bool = False
    no_truncate: bool = False
    max_client_batch: int = 2048
    max_wait: float = 2.5
    max_queue_tokens: int | None = None
    max_concurrent_requests: int = 512
    max_body: int = 16 << 20
    request_timeout: float = 60.0
    engine_timeout: float = 60.0
    drain_delay: float = 0.0
    drain_timeout: float = 30.0
    cors_origin: tuple[str, ...] = ()
    access_log: bool = True
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    """The keys of the file; without any, every client is served."""


@dataclass(frozen=True)
class _Option:
    metavar: str
    parse: Callable[[str], Any]
    help: str
    many: bool = False


def _whole(least: int, most: int = 2**62) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError
        return value

    parse.__name__ = f"whole number from {least}" + (f" to {most}" if most < 2**62 else "")
    return parse


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e6:
        raise ValueError
    return value


_seconds.__name__ = "number of seconds"


def _flag(text: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in values:
        raise ValueError
    return values[text.lower()]


_flag.__name__ = "0 or 1"

OPTIONS: dict[str, _Option] = {
    "name": _Option("NAME", str, "served name of a folder; once for each, in their order (default: its name)", True),
    "host": _Option("HOST", str, "address to listen on (default: 127.0.0.1, this machine alone)"),
    "port": _Option("PORT", _whole(0, 65535), "port to listen on, 0 for a free one (default: 8080)"),
    "uds": _Option("PATH", str, "Unix socket to listen on, in place of host and port"),
    "device": _Option("DEVICE", str, f"{DEVICE_NAMES} (default: auto)"),
    "precision": _Option("PRECISION", str, "precision of the graph, as fp32 (default: the folder's first)"),
    "threads": _Option("N", _whole(1), "cores a model may use (default: all)"),
    "api_key_file": _Option("FILE", str, "file of keys, one a line; clients must send one of them"),
    "token_ids": _Option(
        "", _flag, "take token ids in place of texts; they must be those of the model's own tokenizer"
    ),
    "no_truncate": _Option("", _flag, "refuse texts that are too long, unless a request says truncate"),
    "max_client_batch": _Option("N", _whole(1), "texts a request (default: 2048)"),
    "max_wait": _Option(
        "SECONDS",
        _seconds,
        "longest that a short request should wait; bulk four times as long (default: 2.5)",
    ),
    "max_queue_tokens": _Option("N", _whole(1), "tokens that may wait, in place of what --max-wait makes of them"),
    "max_concurrent_requests": _Option("N", _whole(1), "requests at one time (default: 512)"),
    "max_body": _Option("BYTES", _whole(1), "bytes a request (default: 16777216)"),
    "request_timeout": _Option("SECONDS", _seconds, "longest a request may take (default: 60)"),
    "engine_timeout": _Option(
        "SECONDS", _seconds, "longest one batch may take; then the server gives up (default: 60)"
    ),
    "drain_delay": _Option("SECONDS", _seconds, "after SIGTERM, go on taking requests so long (default: 0)"),
    "drain_timeout": _Option("SECONDS", _seconds, "after SIGTERM, requests have so long to end (default: 30)"),
    "cors_origin": _Option("ORIGIN", str, "let web pages of this origin in, * for all; may be repeated", True),
}


def variable(name: str) -> str:
    """The environment variable of an option."""
    return f"BGERT_{name.upper()}"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `bgert serve`. What is not given there is looked up in the environment."""
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="model folders: encoders, rerankers or both")
    for name, option in OPTIONS.items():
        flag = "--" + name.replace("_", "-")
        if option.parse is _flag:
            parser.add_argument(flag, action="store_const", const="1", help=option.help)
        elif option.many:
            parser.add_argument(flag, action="append", metavar=option.metavar, help=option.help)
        else:
            parser.add_argument(flag, metavar=option.metavar, help=option.help)
    parser.add_argument(
        "--no-access-log", dest="access_log", action="store_const", const="0", help="no line a request on stdout"
    )


def settings_from(args: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of a command line, with the environment's where it says nothing.

    Raises:
        InvalidOptionError: a value is not of its kind, or a combination makes no sense; the message names the option.
        InputFileError: the file of keys cannot be read.
    """
    values: dict[str, Any] = {}
    options = OPTIONS | {"access_log": _Option("", _flag, "")}
    for name, option in options.items():
        given = getattr(args, name)
        where = "--" + name.replace("_", "-")
        if given is None and variable(name) in environment:
            where, text = variable(name), environment[variable(name)]
            given = [part.strip() for part in text.split(",") if part.strip()] if option.many else text
        if given is None:
            continue
        try:
            values[name] = tuple(map(option.parse, given)) if option.many else option.parse(given)
        except ValueError:
            kind = option.parse.__name__.strip("_")
            raise InvalidOptionError(f"{where} is {given!r}: use a {kind}") from None
    folders = tuple(args.folders) or tuple(environment.get(variable("folders"), "").split())
    if not folders:
        raise InvalidOptionError("name at least one model folder, or set BGERT_FOLDERS")
    settings = Settings(folders=folders, **values)
    if settings.name and len(settings.name) != len(folders):
        raise InvalidOptionError(f"{len(folders)} folders and {len(settings.name)} names: give --name once for each")
    if settings.uds is not None and ({"host", "port"} & values.keys()):
        raise InvalidOptionError("--uds listens on a Unix socket: leave --host and --port out")
    if settings.api_key_file is None:
        return settings
    return replace(settings, keys=_keys(Path(settings.api_key_file)))


def _keys(path: Path) -> tuple[bytes, ...]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InputFileError(f"cannot read the keys in {path}: {reason}") from None
    keys = tuple(line.strip().encode() for line in lines if line.strip())
    if not keys:
        raise InvalidOptionError(f"{path} holds no key: write one a line, or leave --api-key-file out")
    return keys
