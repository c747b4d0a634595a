"""Debian packages of any suite and architecture, unpacked into a folder; nothing of this machine's apt is touched."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# The suite that has a Python; 3.12 was in no release of Debian, and its stable ABI is built with newer headers.
SUITES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "sid"}
EMULATOR = "trixie"  # the suite of qemu: ONNX Runtime 1.32 for ARM ends in a fault under bookworm's 7.2
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def mirror() -> str:
    """The archive that this machine's apt uses."""
    folder = Path("/etc/apt")
    for path in [*sorted(folder.glob("sources.list.d/*")), folder / "sources.list"]:
        if path.is_file():
            found = re.search(
                r"(?:^URIs:\s*|^deb\s+(?:\[.*?\]\s+)?)(\S+/debian/?)(?:\s|$)", path.read_text(), re.MULTILINE
            )
            if found:
                return found[1]
    raise SystemExit("the wheels' Python headers are Debian packages: run this on Debian, or pass --headers")


class Debian:
    """One suite for one architecture, with lists and downloads of its own below `folder`."""

    def __init__(self, folder: Path, suite: str, machine: str) -> None:
        self.folder = folder.resolve() / f"{suite}-{machine}"
        self.architecture = ARCHITECTURES[machine]
        self.suite = suite
        for name in ("lists/partial", "archives/partial", "etc"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()  # nothing is installed: a download brings all that a package needs
        (self.folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n")

    def _apt(self, *arguments: str) -> str:
        settings = {
            "Dir::Etc": self.folder / "etc",
            "Dir::Etc::sourcelist": self.folder / "sources.list",
            "Dir::State::lists": self.folder / "lists",
            "Dir::State::status": self.folder / "status",
            "Dir::Cache": self.folder,
            "Dir::Cache::archives": self.folder / "archives",
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Check-Valid-Until": "false",  # a mirror of sid may lag; signatures are checked all the same
        }
        options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
        command = ["apt-get", "-q", "-q", "--yes", *options, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder / "archives")
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        return done.stdout

    def _update(self) -> None:
        if not any(path.is_file() and "Packages" in path.name for path in (self.folder / "lists").iterdir()):
            self._apt("update")

    def headers(self, python: str) -> Path:
        """The folder of Python.h, with the pyconfig.h of this architecture."""
        root = self.folder / "headers"
        if not (root / f"usr/include/python{python}").exists():
            self._update()
            self._apt("download", f"libpython{python}-dev:{self.architecture}")
            (path,) = (self.folder / "archives").glob(f"libpython{python}-dev_*.deb")
            subprocess.run(["dpkg-deb", "-x", path, root], check=True)
            path.unlink()  # `system` unpacks what lies here
        return root / f"usr/include/python{python}"

    def emulator(self, machine: str) -> Path:
        """Qemu's program for another architecture, which needs no library."""
        root = self.folder / "emulator"
        if not root.exists():
            self._update()
            self._apt("download", f"qemu-user:{self.architecture}")
            (path,) = (self.folder / "archives").glob("qemu-user_*.deb")
            subprocess.run(["dpkg-deb", "-x", path, root], check=True)
            path.unlink()  # `system` unpacks what lies here
        return root / f"usr/bin/qemu-{machine}"

    def system(self, *packages: str) -> Path:
        """A root folder with these packages and all that they need, unpacked and not configured."""
        root = self.folder / "root"
        if not (root / "complete").exists():
            self._update()
            self._apt("install", "--download-only", *packages)
            root.mkdir(exist_ok=True)
            for name in ("bin", "sbin", "lib", "lib64"):  # as installed systems have them
                (root / "usr" / name).mkdir(parents=True, exist_ok=True)
                if not (root / name).is_symlink():
                    (root / name).symlink_to(f"usr/{name}")
            for path in sorted((self.folder / "archives").glob("*.deb")):
                archive = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", path], stdout=subprocess.PIPE)
                subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", root], stdin=archive.stdout, check=True)
                if archive.wait():
                    raise SystemExit(f"{path} cannot be read")
            (root / "complete").touch()
        return root
