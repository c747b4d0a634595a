"""One virtual environment a requirement file, built once; its size and how long it took are kept beside it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["CURRENT", "Environment", "EnvironmentFailedError", "PeerEnvironments"]

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path(__file__).resolve().parent / "peers"
STAMP = "bench.json"
SOURCES = {".py", ".cpp", ".h", ".inc", ".txt", ".json"}


class EnvironmentFailedError(RuntimeError):
    """pip could not build the environment; the message ends with what pip said."""


@dataclass(frozen=True)
class Environment:
    """What was installed.

    Attributes:
        python: its interpreter.
        versions: installed packages.
        install_bytes: of all files in site-packages; pip is not among them.
        install_seconds: from an empty folder to all packages installed, pip's cache unused; None if not installed here.
    """

    python: str
    versions: dict[str, str]
    install_bytes: int | None
    install_seconds: float | None


# The environment that the harness itself runs in, for the quick mode and for what measures the machine.
CURRENT = Environment(sys.executable, {}, None, None)


class PeerEnvironments:
    """Builds environments below a folder and remembers them by a hash of what they hold."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log

    def get(self, name: str) -> Environment:
        """The environment of `peers/<name>.txt`, built if it is missing or its requirements changed.

        Raises:
            EnvironmentFailedError: pip failed.
        """
        target = self.folder / name
        fingerprint = self._fingerprint(name)
        stamp = target / STAMP
        if stamp.exists():
            known = json.loads(stamp.read_text())
            if known.pop("fingerprint") == fingerprint:
                return Environment(**known)
        shutil.rmtree(target, ignore_errors=True)
        wheels = [self._bgert_wheel()] if name == "bgert" else []
        begun = time.perf_counter()
        self._run([sys.executable, "-m", "venv", "--without-pip", str(target)])
        python = target / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-cache-dir", "--quiet"]
        self._run([*pip, "--requirement", str(REQUIREMENTS / f"{name}.txt"), *map(str, wheels)])
        bare = REQUIREMENTS / f"{name}.no-deps.txt"
        if bare.exists():
            self._run([*pip, "--no-deps", "--requirement", str(bare)])
        seconds = time.perf_counter() - begun
        packages = next((target / "lib").glob("python*")) / "site-packages"
        size = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file() and not path.is_symlink())
        listed = self._run([sys.executable, "-m", "pip", "--python", str(python), "list", "--format=json"])
        versions = {entry["name"]: entry["version"] for entry in json.loads(listed)}
        built = Environment(str(python), versions, size, round(seconds, 1))
        stamp.write_text(json.dumps(asdict(built) | {"fingerprint": fingerprint}, indent=1))
        return built

    def _fingerprint(self, name: str) -> str:
        digest = hashlib.sha256(sys.version.encode())
        files = [REQUIREMENTS / f"{name}.txt", REQUIREMENTS / f"{name}.no-deps.txt"]
        if name == "bgert":
            files += [ROOT / "pyproject.toml"]
            files += sorted(path for path in (ROOT / "runtime").rglob("*") if path.suffix in SOURCES)
            files += sorted((ROOT / "export").rglob("*.py"))
        for path in files:
            if path.exists():
                digest.update(path.read_bytes())
        return digest.hexdigest()

    def _bgert_wheel(self) -> Path:
        """A wheel of this checkout, as a release would be; building it is not counted as installing."""
        folder = self.folder / "wheels"
        shutil.rmtree(folder, ignore_errors=True)
        self._run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)])
        return next(folder.glob("*.whl"))

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        with self.log.open("a") as log:
            print("$", *command, done.stdout, done.stderr, sep=" ", file=log)
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if "ERROR" in line or "error" in line]
            raise EnvironmentFailedError(f"{' '.join(command[-4:])}: {' '.join(errors[-3:]) or done.stderr[-500:]}")
        return done.stdout
