"""bgert inside other libraries: `python tests/integrations/run.py`, with bgert's extra `test` installed.

Each folder here is a set of libraries that go together: `requirements.txt` pins them, and its tests run by pytest in an
environment of their own, which also holds bgert. Tests in `NAME_any` run in the environment of every `NAME_VERSION`.
Models are made once, offline, and handed over in `BGERT_MODELS`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import models  # noqa: E402

NAMES = sorted(path.parent.name for path in HERE.glob("*/requirements.txt"))


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program without the caller's PYTHON* variables, offline for the hub."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"} | variables
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, env=clean, cwd=ROOT)


def environment(name: str, folder: Path, wheel: Path) -> Path:
    """The interpreter of `name`'s environment in `folder`; one for the same requirements is kept, bgert renewed."""
    python, made_for = folder / name / "bin/python", folder / name / "requirements.installed"
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    requirements = (HERE / name / "requirements.txt").read_text("utf-8")
    if made_for.exists() and made_for.read_text("utf-8") == requirements:
        checked(*install, "--force-reinstall", "--no-deps", wheel)
        return python
    venv.create(folder / name, with_pip=True, clear=True)
    checked(*install, "-r", HERE / name / "requirements.txt", "pytest>=8", f"{wheel}[cpu,export]")
    made_for.write_text(requirements, "utf-8")
    return python


def checked(*command: str | Path) -> str:
    """What a command printed; the end of this program where it failed."""
    done = run(*command)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def main() -> int:
    """Make models and environments, run each folder's tests; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--environments", type=Path, help="keep the environments here, and take those that are there")
    arguments, pytest = parser.parse_known_args()
    if unknown := sorted(set(arguments.names) - set(NAMES)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    names = arguments.names or NAMES
    begun = time.monotonic()
    failed = []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        checked(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", work, ROOT)
        (wheel,) = work.glob("bgert-*.whl")
        folder = (arguments.environments or work / "environments").resolve()
        with ThreadPoolExecutor(2) as pool:
            made = {name: pool.submit(environment, name, folder, wheel) for name in names}
            paths = {name: str(path) for name, path in models.make(work / "models").items()}
            pythons = {name: future.result() for name, future in made.items()}
        print(f"{len(pythons)} environments: {time.monotonic() - begun:.0f} s", flush=True)
        for name, python in pythons.items():
            options = ("-q", "-o", "filterwarnings=default", "--confcutdir", HERE)
            folders = [path for path in (HERE / f"{name.rpartition('_')[0]}_any", HERE / name) if path.is_dir()]
            done = run(
                python,
                "-m",
                "pytest",
                *options,
                *folders,
                *pytest,
                BGERT_MODELS=json.dumps(paths),
                BGERT_CACHE=str(work / "cache"),
            )
            print(
                f"{name}: {done.stdout.rstrip().rpartition(chr(10))[2]} ({time.monotonic() - begun:.0f} s)", flush=True
            )
            if done.returncode:
                failed.append(name)
                print(done.stdout[-20000:], done.stderr[-4000:], flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
