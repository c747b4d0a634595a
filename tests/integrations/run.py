"""bgert inside other libraries: `python tests/integrations/run.py`, with bgert's extra `test` installed.

Each folder here pins the libraries of its tests in `requirements.txt`, and in `requirements.no-deps.txt` those that are
installed without theirs (PyLate's index wants a PyTorch for GPUs, and nothing here needs an index). An environment
holds bgert and what its folders pin; two environments are tested at a time, folder after folder. Models are made once,
offline, and handed over in `BGERT_MODELS`.
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

# Few environments: each costs a minute, and a gigabyte where it holds PyTorch.
ENVIRONMENTS = {
    "sentence_transformers_5": ("sentence_transformers_any", "sentence_transformers_5"),
    "sentence_transformers_6": (
        "sentence_transformers_any",
        "sentence_transformers_6",
        "flag_embedding",
        "originals",
    ),
    "frameworks": ("frameworks", "stores", "python_tools"),
    "scale_out": ("scale_out",),
    "multi_vector": ("multi_vector",),
}


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A program without the caller's PYTHON* variables, offline for the hub."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    clean |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"} | variables
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, env=clean, cwd=ROOT)


def environment(name: str, folder: Path, wheel: Path) -> Path:
    """The interpreter of `name`'s environment in `folder`; one for the same requirements is kept, bgert renewed."""
    python, made_for = folder / name / "bin/python", folder / name / "requirements.installed"
    install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    files = [path for part in ENVIRONMENTS[name] if (path := HERE / part / "requirements.txt").exists()]
    alone = [path for part in ENVIRONMENTS[name] if (path := HERE / part / "requirements.no-deps.txt").exists()]
    requirements = "".join(path.read_text("utf-8") for path in files + alone)
    if made_for.exists() and made_for.read_text("utf-8") == requirements:
        checked(*install, "--force-reinstall", "--no-deps", wheel)
        return python
    venv.create(folder / name, with_pip=True, clear=True)
    checked(*install, *(f"-r{path}" for path in files), "pytest>=8", f"{wheel}[cpu,export]")
    if alone:
        checked(*install, "--no-deps", *(f"-r{path}" for path in alone))
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
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ENVIRONMENTS)}; all by default")
    parser.add_argument("--environments", type=Path, help="keep the environments here, and take those that are there")
    arguments, pytest = parser.parse_known_args()
    if unknown := sorted(set(arguments.names) - set(ENVIRONMENTS)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(ENVIRONMENTS)}")
    names = arguments.names or list(ENVIRONMENTS)
    begun = time.monotonic()
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

        def test(name: str) -> list[str]:
            """The folders of an environment, one after the other; those that failed."""
            failed = []
            for part in ENVIRONMENTS[name]:
                command = (pythons[name], "-m", "pytest", "-q", "-o", "filterwarnings=default", "--confcutdir", HERE)
                variables = {"BGERT_MODELS": json.dumps(paths), "BGERT_CACHE": str(work / "cache")}
                done = run(*command, HERE / part, *pytest, **variables)
                summary = done.stdout.rstrip().rpartition("\n")[2]
                print(f"{part} in {name}: {summary} ({time.monotonic() - begun:.0f} s)", flush=True)
                if done.returncode:
                    failed.append(f"{part} in {name}")
                    print(done.stdout[-20000:], done.stderr[-4000:], flush=True)
            return failed

        with ThreadPoolExecutor(2) as pool:
            failed = [part for parts in pool.map(test, names) for part in parts]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
