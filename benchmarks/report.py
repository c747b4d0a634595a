"""README tables, `benchmarks/RESULTS.md` and `benchmarks/plots`, made from the newest results of each kind.

`python benchmarks/report.py` writes them; `--check` says whether they are up to date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

FOLDER = Path(__file__).resolve().parent
if str(FOLDER) not in sys.path:  # tests load this file by its path
    sys.path.insert(0, str(FOLDER))

import families  # noqa: E402
import gpu_tables  # noqa: E402
import results  # noqa: E402
import serving  # noqa: E402
import tables  # noqa: E402
from plots import plots  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = FOLDER.parent
BLOCKS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "headline": ("cpu", tables.headline),
    "serving": ("serving", serving.readme),
    "tables": ("cpu", tables.readme),
    "gpu table": ("gpu", gpu_tables.readme),
}


def newest() -> dict[str, dict[str, Any]]:
    """The newest result by kind."""
    return {"cpu": results.read(results.newest()), "gpu": results.gpu(), "serving": serving.newest() or {}}


def rendered(readme: str) -> str:
    """The README with what is between its marks made anew."""
    found = newest()
    for name, (kind, make) in BLOCKS.items():
        start, end = f"<!-- {name}: made by benchmarks/report.py -->", f"<!-- end of {name} -->"
        before, rest = readme.split(start)
        _, after = rest.split(end)
        readme = f"{before}{start}\n{make(found[kind])}\n{end}{after}"
    return readme


def files() -> dict[Path, str]:
    """Everything that is made, by path."""
    found = newest()
    drawn = plots(found["cpu"])
    detail = tables.detail(found["cpu"], sorted(drawn))
    drawn |= gpu_tables.plots(found["gpu"])
    readme = ROOT / "README.md"
    made = {readme: rendered(readme.read_text(encoding="utf-8"))}
    made[FOLDER / "RESULTS.md"] = detail + "\n" + families.detail(families.newest()) + "\n"
    made[FOLDER / "RESULTS.md"] += gpu_tables.detail(found["gpu"])
    made[FOLDER / "RESULTS.md"] += serving.detail(found["serving"])
    drawn |= serving.plots(found["serving"])
    return made | {FOLDER / "plots" / name: content for name, content in sorted(drawn.items())}


def stale() -> list[Path]:
    """Files that differ from what would be made, and plots that nothing makes."""
    made = files()
    wrong = [path for path, content in made.items() if not path.exists() or path.read_text(encoding="utf-8") != content]
    return wrong + sorted(path for path in (FOLDER / "plots").glob("*") if path not in made)


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.check:
        for path in stale():
            print(f"{path.relative_to(ROOT)} is out of date: python benchmarks/report.py")
        return int(bool(stale()))
    made = files()
    (FOLDER / "plots").mkdir(exist_ok=True)
    for path in stale():
        if path in made:
            path.write_text(made[path], encoding="utf-8")
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
