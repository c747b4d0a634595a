"""Install each wheel of dist/ into a small Debian system without a compiler and run it there (check_wheel.py).

    python release/run_wheels.py                 what dist/ holds, for every Python that Debian has
    python release/run_wheels.py --machine aarch64 --python 3.11

The system is a folder of unpacked packages: Python, C and C++ library and what these need. One of the other
architecture runs under qemu-user, of Debian's package. What it has to say is written by the bgert that runs this
(truth.py). Needs root, or user namespaces.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from debian import EMULATOR, SUITES, Debian
from truth import write

ROOT = Path(__file__).resolve().parent.parent
MACHINES = ("x86_64", "aarch64")
PLATFORMS = [*(f"manylinux_2_{minor}" for minor in range(28, 16, -1)), "manylinux2014"]


def wheel_for(dist: Path, python: str, machine: str) -> Path | None:
    """The wheel that pip would take: of this version, or of a stable ABI that it has."""
    minor = int(python.partition(".")[2])
    for tags in (f"cp3{minor}-cp3{minor}", *(f"cp3{older}-abi3" for older in range(minor, 11, -1))):
        for path in dist.glob(f"bgert-*-{tags}-*_{machine}.whl"):
            return path
    return None


def install(wheel: Path, python: str, machine: str, folder: Path) -> None:
    """The wheel with its extra `cpu`, as pip would for that Python and machine; nothing is compiled."""
    shutil.rmtree(folder, ignore_errors=True)
    where = [part for name in PLATFORMS for part in ("--platform", f"{name}_{machine}")]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--target",
        str(folder),
    ]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *where, f"{wheel}[cpu]"]
    subprocess.run(command, check=True)


def run_inside(root: Path, emulator: Path | None, *command: str) -> str:
    """Standard output of a command inside the system, with nothing of this machine but its kernel."""
    # ONNX Runtime reads /proc and /sys; the mounts end with the process.
    for name in ("proc", "sys"):
        (root / name).mkdir(exist_ok=True)
    mount = f'mount --rbind /proc "{root}/proc"; mount --rbind /sys "{root}/sys"; exec chroot "{root}" "$@"'
    enter = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-e", "-c", mount, "sh"]
    if emulator is not None:
        shutil.copy(emulator, root / "emulator")
        enter.append("/emulator")
    clean = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONPATH": "/site",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run([*enter, *command], capture_output=True, text=True, env=clean)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def check(root: Path, emulator: Path | None, wheel: Path, python: str, machine: str, truth: Path) -> str:
    """Install and run a wheel inside a system; the line that check_wheel.py prints."""
    for compiler in ("cc", "gcc", "g++", "clang"):
        if list(root.glob(f"usr/bin/*{compiler}")):
            raise SystemExit(f"there is a compiler in {root}: the check would prove less")
    install(wheel, python, machine, root / "site")
    shutil.rmtree(root / "check", ignore_errors=True)
    shutil.copytree(truth, root / "check")
    shutil.copy(Path(__file__).with_name("check_wheel.py"), root / "check")
    return run_inside(root, emulator, f"/usr/bin/python{python}", "/check/check_wheel.py", "/check").strip()


def main() -> None:
    """Run what is asked for, everything by default; ends at the first wheel that is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--machine", action="append", choices=MACHINES, help="default: both")
    parser.add_argument("--python", action="append", choices=list(SUITES), help="default: all that Debian has")
    parser.add_argument("--model", type=Path, help="a model folder; default: all-MiniLM-L6-v2 is exported")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("--work", type=Path, default=ROOT / "build/release")
    options = parser.parse_args()
    here = platform.machine()
    emulators: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as temporary:
        truth = Path(temporary) / "truth"
        write(truth, options.model)
        for machine in options.machine or MACHINES:
            if machine != here:
                emulators[machine] = Debian(options.work / "debian", EMULATOR, here).emulator(machine)
            for python in options.python or SUITES:
                started = time.monotonic()
                wheel = wheel_for(options.dist, python, machine)
                if wheel is None:
                    raise SystemExit(f"{options.dist} has no wheel for Python {python} on {machine}: make wheels")
                system = Debian(options.work / "debian", SUITES[python], machine)
                root = system.system(f"python{python}-minimal", f"libpython{python}-stdlib", "libstdc++6")
                said = check(root, emulators.get(machine), wheel.resolve(), python, machine, truth)
                print(f"{wheel.name}\n  {said} ({time.monotonic() - started:.0f} s in all)", flush=True)


if __name__ == "__main__":
    main()
