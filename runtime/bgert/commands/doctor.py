"""`bgert doctor`: what this machine can run, and why not the rest. It changes nothing and connects to nowhere."""

from __future__ import annotations

import json
import os
import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

__all__ = ["add_options", "examine", "run"]

# The keys of --json keep their names and meanings while this number does; new ones may come.
VERSION = 1
PACKAGES = (
    *("numpy", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-lean", "tensorrt-rtx-cu13", "cuda-bindings"),
    *("onnx", "safetensors", "huggingface_hub", "torch", "transformers", "sentence-transformers", "tokenizers"),
)
EXTRAS = ("cpu", "gpu", "tensorrt", "tensorrt-rtx", "export", "verify", "serve", "hf-tokenizers")
VARIABLES = re.compile(
    r"BGERT_\w+|OMP_NUM_THREADS|CUDA_VISIBLE_DEVICES|ORT_DISABLE_TELEMETRY|LD_LIBRARY_PATH|LD_PRELOAD"
)
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--json", action="store_true", help="for bug reports and programs: keys that stay")


def run(args: argparse.Namespace) -> int:
    """Print what was found; exit status 1 where no device can run a model."""
    found = examine()
    if args.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        lines = _lines(found)
        width = max(len(name) for name, _ in lines)
        for name, value in lines:
            print("".join(one if one.isprintable() else repr(one)[1:-1] for one in f"{name:<{width}}  {value}"))
    return 0 if any(device["available"] for device in found["devices"]) else 1


def examine() -> dict[str, Any]:
    """Everything that `--json` prints. A part that fails is `{"error": why}`."""
    from bgert import __version__, machine

    gpu = _part(machine.gpus)
    return {
        "version": VERSION,
        "bgert": __version__,
        "system": _part(machine.system),
        "cpu": _part(_cpu),
        "memory": _part(machine.memory),
        "gpu": gpu,
        "devices": _devices(bool(gpu.get("list"))),
        "packages": _part(lambda: {name: _installed(name) for name in PACKAGES}),
        "extras": _part(lambda: {name: _missing(name) for name in EXTRAS}),
        "cache": _part(_cache),
        "environment": _part(_environment),
    }


def _part(look: Any) -> Any:
    """What a look at the machine gives. Whatever is odd there, the report goes on."""
    try:
        return look()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def _cpu() -> dict[str, Any]:
    from bgert import machine
    from bgert.backends.onnx_cpu import kernels_name

    return {**machine.processor(), "kernels": kernels_name() or None}


def _devices(gpu_listed: bool) -> list[dict[str, Any]]:
    from bgert.backends.availability import DEVICES, why_unavailable
    from bgert.backends.cuda.check import nvidia_device_present

    reasons = {device: why_unavailable(device) for device in DEVICES}
    if not gpu_listed and not nvidia_device_present():  # what to install would help nobody
        for device, why in reasons.items():
            if device != "cpu" and why is not None:
                reasons[device] = f"there is no NVIDIA GPU here. With one: {why}"
    return [{"device": name, "available": why is None, "reason": why} for name, why in reasons.items()]


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _missing(extra: str) -> list[str]:
    """Requirements of an extra, as bgert's metadata has them, whose package is not installed."""
    missing = []
    for requirement in metadata.requires("bgert") or ():
        text, _, condition = requirement.partition(";")
        wanted = re.search(r"extra == [\"']([\w-]+)[\"']", condition)
        name = re.match(r"[\w.-]+", text)
        if name and wanted and wanted[1] == extra and _installed(name[0]) is None:
            missing.append(text.strip())
    return missing


def _cache() -> dict[str, Any]:
    """The folder of exported models, and whether it can be written or made."""
    from bgert.cache_folder import cache_folder

    folder = cache_folder()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    return {
        "folder": _tilde(str(folder)),
        "exists": folder.is_dir(),
        "writable": nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK),
    }


def _environment() -> dict[str, str]:
    """Variables that change what bgert does. What might be a secret is not told."""
    return {
        name: "(set)" if SECRET.search(name) else _tilde(value)
        for name, value in sorted(os.environ.items())
        if VARIABLES.fullmatch(name)
    }


def _tilde(text: str) -> str:
    """Without the user's name, for reports are published."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for people."""
    lines = [("bgert", found["bgert"])]
    lines += [(name, _words(name, found[name])) for name in ("system", "cpu", "memory", "gpu")]
    lines += [
        (f"device {one['device']}", "can run models" if one["available"] else f"no: {one['reason']}")
        for one in found["devices"]
    ]
    packages, extras = found["packages"], found["extras"]
    lines.append(("installed", _words("packages", packages)))
    if "error" not in extras:
        for name, missing in extras.items():
            state = f"missing {', '.join(missing)}" if missing else "complete"
            lines.append((f"extra {name}", state + _ABOUT.get(name, "")))
    lines.append(("cache", _words("cache", found["cache"])))
    lines.append(("environment", _words("environment", found["environment"])))
    return lines


def _words(name: str, part: dict[str, Any]) -> str:
    if "error" in part and part["error"] is not None:
        return f"{part['error']}"
    if name == "system":
        threads = ", free-threaded" if part["free_threaded"] else ""
        return (
            f"{part['system']} {part['release']} {part['machine']}, {part['libc'] or 'C library unknown'}, "
            f"{part['implementation']} {part['python']}{threads}"
        )
    if name == "cpu":
        asked = f", OMP_NUM_THREADS asks for {part['omp_num_threads']}" if part["omp_num_threads"] else ""
        return (
            f"{part['name']}; {part['usable_cores']} of {part['cores']} cores may be used{asked}; "
            f"kernels {part['kernels'] or 'of that name (BGERT_KERNELS) are not here'}; "
            f"{' '.join(part['instructions']) or 'instructions unknown'}"
        )
    if name == "memory":
        words = [f"{text} {part[key] / 2**30:.1f} GiB" for key, text in _MEMORY.items() if part[key] is not None]
        return ", ".join(words) or "unknown"
    if name == "gpu":
        return f"driver {part['driver']}: " + (", ".join(_gpu_words(gpu) for gpu in part["list"]) or "no GPU")
    if name == "packages":
        return ", ".join(f"{package} {version}" for package, version in part.items() if version) or "nothing"
    if name == "cache":
        state = "there" if part["exists"] else "not made yet"
        return f"{part['folder']}: {state}, {'writable' if part['writable'] else 'NOT WRITABLE: set BGERT_CACHE'}"
    return ", ".join(f"{key}={value}" for key, value in part.items()) or "nothing set"


_ABOUT = {"hf-tokenizers": "; built in Rust, for model folders exported with --tokenizer huggingface alone"}
_MEMORY = {"total": "of the machine", "available": "free", "limit": "allowed by the cgroup"}


def _gpu_words(gpu: dict[str, Any]) -> str:
    size = "" if gpu["memory"] is None else f" {gpu['memory'] / 2**30:.0f} GiB"
    return f"{gpu['name'] or 'GPU'}{size}, compute capability {gpu['compute_capability'] or 'unknown'}"
