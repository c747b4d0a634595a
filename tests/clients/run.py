"""Real clients against a real `bgert serve`: `python tests/clients/run.py`, with bgert's extra `test` installed.

The server has an environment of its own with bgert's extras `cpu` and `serve`; the clients have two, for cohere 5 and 7
do not go together. Every call's result is compared with what `Encoder` and `Reranker` give, bit for bit. The table of
what was called is docs/clients.md; `--write` writes it anew.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "examples")]

import client_table  # noqa: E402
import demo  # noqa: E402

STRICT = ("--name", "minilm", "--name", "twin", "--name", "reranker")
STRICT += ("--max-concurrent-requests", "1", "--max-client-batch", "8")


def environment(folder, *packages):
    """A new environment's interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    return python


def run(*command, **more):
    # Offline, Hugging Face's client would not call even this machine.
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HF_HUB_OFFLINE"))}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=clean | more)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


@contextlib.contextmanager
def server(python, log, *arguments):
    """The address of a `bgert serve`, once it is ready."""
    said = log.with_suffix(".err")
    command = [python, "-m", "bgert", "serve", *arguments, "--port", "0"]
    with log.open("wb") as out, said.open("wb") as err:
        process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=err, cwd=log.parent)
    try:
        end = time.monotonic() + 120
        while not (found := re.search(r"ready on (http://\S+:\d+)\n", said.read_text())):
            if process.poll() is not None or time.monotonic() > end:
                sys.exit(f"the server did not start: {said.read_text()}")
            time.sleep(0.05)
        yield found[1]
    finally:
        process.terminate()
        if process.wait(60):
            sys.exit(f"the server ended with {process.returncode}: {said.read_text()[-4000:]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/clients.md anew")
    parser.add_argument("--environments", type=Path, help="keep the environments here, and take those that are there")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    begun = time.monotonic()
    encoder = ROOT / "build/demo/all-MiniLM-L6-v2"
    reranker = encoder.with_name("random-cross-encoder")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = options.environments or work / "environments"
        needed = {"server": [f"{ROOT}[cpu,serve]"]}
        needed |= {path.stem: ["-r", path] for path in client_table.REQUIREMENTS}
        with ThreadPoolExecutor() as pool:
            made = {
                name: pool.submit(
                    lambda where, what: where / "bin/python" if where.exists() else environment(where, *what),
                    folder / name,
                    packages,
                )
                for name, packages in needed.items()
            }
            demo.export_model(encoder)
            demo.rerank(reranker)
            pythons = {name: future.result() for name, future in made.items()}
        print(f"{len(pythons)} environments: {time.monotonic() - begun:.0f} s")
        truth = json.loads(run(pythons["server"], HERE / "truth.py", encoder, reranker))
        rows = []
        plain, strict = work / "plain.log", work / "strict.log"
        names = ("--name", "minilm", "--name", "reranker")
        with (
            server(pythons["server"], plain, encoder, reranker, *names) as url,
            server(pythons["server"], strict, encoder, encoder, reranker, *STRICT) as strict_url,
        ):
            given = {"url": url, "strict_url": strict_url, "strict_log": str(strict), "truth": truth}
            (work / "given.json").write_text(json.dumps(given), "utf-8")
            for name, program in client_table.PROGRAMS:
                out = work / "rows.json"
                run(pythons[name], HERE / program, out, BGERT_CLIENTS=str(work / "given.json"))
                rows += json.loads(out.read_text("utf-8"))
                print(f"{program} in {name}: {time.monotonic() - begun:.0f} s")
        return report(rows, write=options.write)


def report(rows, *, write):
    """Print what failed and compare the rows with the table; the exit status."""
    failed = [row for row in rows if row["problem"]]
    for row in failed:
        print(f"FAILED {row['client']} {row['version']}, {row['call']}\n{row['problem']}")
    print(f"{len(rows) - len(failed)} of {len(rows)} calls passed")
    if write and not failed:
        client_table.TABLE.write_text(client_table.render(rows), "utf-8")
    listed = [(row["client"], row["version"], row["call"]) for row in rows]
    if listed != client_table.expected():
        print("the calls made are not those of the programs")
        return 1
    if client_table.TABLE.read_text("utf-8") != client_table.render(rows):
        print("docs/clients.md is not this table: write it with --write")
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
