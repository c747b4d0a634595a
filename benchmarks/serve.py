"""Measure `bgert serve` under load, beside `Encoder` and infinity-emb's server, and write one JSON.

    python benchmarks/serve.py --prepare     # environments and models, once
    python benchmarks/serve.py               # all stages, about 7 minutes on 2 cores
    python benchmarks/report.py              # README, RESULTS.md and plots from it

All traffic stays on the loopback. The model is the demo's, in fp32 and int8.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shutil
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import machine
import models
import results
import serving
from bgert.cpu_count import available_cpus
from peer_environment import PeerEnvironments
from peer_process import surroundings

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent
SHORT = "what is the capital of france and how many people live there today"
PEER = "infinity_server"
LOADS = (0.5, 0.8, 1.0)
OVERLOADS = (2.0, 10.0)
STAGES = ("cost", "idle", "load", "abandoned", "peer")


def parsed(argv: list[str] | None) -> argparse.Namespace:
    """The arguments, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="make what is missing, and measure nothing")
    parser.add_argument("--stages", default=",".join(STAGES), help=f"comma-separated of {', '.join(STAGES)}")
    parser.add_argument(
        "--overload-seconds", type=float, default=60.0, help="of each load above capacity (default: 60)"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="other times, as a multiple of the usual")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each beside the others (default: 3)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench", help="environments, models, logs")
    parser.add_argument("--output", type=Path, help="JSON; results/serving/DATE-MACHINE.json by default")
    args = parser.parse_args(argv)
    args.stages = args.stages.split(",")
    if unknown := sorted(set(args.stages) - set(STAGES)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(STAGES)}")
    if args.rounds < 1 or not 1 <= args.overload_seconds <= 600 or not 0.01 <= args.scale <= 10:
        parser.error("--rounds from 1, --overload-seconds 1 to 600, --scale 0.01 to 10")
    return args


def prepared(folder: Path, *, anew: bool) -> Path:
    """The model's folder for bgert with fp32 and int8; written anew where asked: the exporter changes."""
    model = models.MODELS["minilm"]
    target = folder / "serving" / "all-MiniLM-L6-v2"
    if anew or not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            shutil.rmtree(target)
        models.export_bgert(models.demo_checkpoint(), model, target, fp32_alone=False)
    return target


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def peer_server(python: str, threads: int) -> Any:
    """infinity-emb's server on its torch engine with its defaults, in the environment of its own."""
    from bgert.loadtest.server_process import ServerProcess

    port, command = free_port(), str(Path(python).with_name("infinity_emb"))
    options = ["--model-id", str(models.demo_checkpoint()), "--served-model-name", "m", "--engine", "torch"]
    options += ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    options += ["--no-bettertransformer", "--no-model-warmup", "--log-level", "warning"]
    environment = surroundings() | {"OMP_NUM_THREADS": str(threads)}
    return ServerProcess([command, "v2", *options], port=port, environment=environment)


def beside_peer(
    folder: Path, encoder: Any, python: str, args: argparse.Namespace, say: Callable[[str], None]
) -> dict[str, Any]:
    """Requests per CPU second of bgert's server in fp32 and int8 and of infinity's, in turns; all three stay loaded."""
    from bgert.loadtest import stages
    from bgert.loadtest.requests import embeddings, mixed_texts
    from bgert.loadtest.server_process import bgert_server

    texts = mixed_texts(encoder, 512)
    shapes = {"single_c16": (16, [SHORT] * 16, 1), "mixed32_c4": (4, texts, 32)}
    with contextlib.ExitStack() as stack:
        servers = {
            "bgert-fp32": stack.enter_context(bgert_server(folder, "--precision", "fp32")),
            "bgert-int8": stack.enter_context(bgert_server(folder, "--precision", "int8")),
            "infinity": stack.enter_context(peer_server(python, available_cpus())),
        }
        found: dict[str, dict[str, list[Any]]] = {shape: {name: [] for name in servers} for shape in shapes}
        for number in range(-1, args.rounds):
            names = list(servers) if number % 2 else list(reversed(servers))
            for shape, (clients, sent, each) in shapes.items():
                for name in names:
                    path = "/embeddings" if name == "infinity" else "/v1/embeddings"
                    jobs = embeddings(encoder, sent, each, base64=False, path=path)
                    seconds = (5.0 if number >= 0 else 1.0) * args.scale
                    run = stages.cost(servers[name], jobs, clients, seconds)
                    say(f"  {shape} {name}: {run['requests_per_cpu_second']} requests per CPU second")
                    if number >= 0:
                        found[shape][name].append(run)
    return {shape: compared(runs) for shape, runs in found.items()}


def compared(runs: dict[str, list[Any]]) -> dict[str, Any]:
    """Medians, and how many times the peer's requests per CPU second, round by round."""
    entry: dict[str, Any] = {}
    for name, values in runs.items():
        rates = [run["requests_per_cpu_second"] for run in values]
        entry[name] = {"requests_per_cpu_second": statistics.median(rates), "runs": values}
        if name != "infinity":
            theirs = [run["requests_per_cpu_second"] for run in runs["infinity"]]
            ratios = [ours / other for ours, other in zip(rates, theirs, strict=True)]
            entry[name]["ratio"] = {
                "median": round(statistics.median(ratios), 3),
                "min": round(min(ratios), 3),
                "max": round(max(ratios), 3),
            }
    return entry


def measure(args: argparse.Namespace, result: dict[str, Any], folder: Path, python: str | None) -> None:
    """All stages; the result is filled as they end."""
    from bgert import Encoder
    from bgert.loadtest import stages
    from bgert.loadtest.requests import embeddings, mixed_texts
    from bgert.loadtest.server_process import bgert_server

    def say(line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)

    encoder = Encoder(folder, precision="fp32")
    texts = mixed_texts(encoder, 512)
    jobs = embeddings(encoder, texts, stages.EACH)
    found = result["stages"]
    if "idle" in args.stages:
        with bgert_server(folder, "--precision", "fp32") as server:
            found["idle"] = stages.idle(server, encoder, SHORT, max(20, int(500 * args.scale)))
            say(f"idle: {found['idle']}")
    if "cost" in args.stages:
        # A queue that 64 clients do not fill on a slow machine either.
        with bgert_server(folder, "--precision", "fp32", "--max-queue-tokens", "1000000") as server:
            stages.capacity(server, jobs, 2.0 * args.scale)
            found["cost"] = stages.tokens_per_cpu_second(
                server, encoder, texts, seconds=5.0 * args.scale, rounds=args.rounds
            )
            say(f"cost: {found['cost']['share']}")
    if "load" in args.stages:
        with (
            bgert_server(folder, "--precision", "fp32") as server,
            bgert_server(folder, "--precision", "fp32") as fresh,
        ):
            stages.capacity(fresh, jobs, 2.0 * args.scale)
            stages.capacity(server, jobs, 2.0 * args.scale)
            full = stages.capacity(server, jobs, 8.0 * args.scale)
            loads = [stages.offered(server, jobs, full, times, 10.0 * args.scale) for times in LOADS]
            for times in OVERLOADS:
                loads.append(stages.overload(server, jobs, full, times, args.overload_seconds))
                loads[-1] |= stages.recovery(server, fresh, jobs)
                say(f"{times}x: {loads[-1]['share_of_capacity']}, {loads[-1]['statuses']}")
                say(f"  ms: {loads[-1]['latency_ms']}, 2 s after: {loads[-1]['speed_after_2_s']}")
            found["load"] = {
                "capacity_requests_per_second": round(full, 3),
                "texts_each": stages.EACH,
                "loads": loads,
            }
    if "abandoned" in args.stages:
        with bgert_server(folder, "--precision", "fp32", "--max-queue-tokens", "1000000") as server:
            found["abandoned"] = stages.abandoned(server, encoder, texts, SHORT, 5)
            say(f"abandoned: {found['abandoned']['delay_in_batches']}")
    if "peer" in args.stages and python is not None:
        found["peer"] = beside_peer(folder, encoder, python, args, say)


def main(argv: list[str] | None = None) -> int:
    """Prepare, measure, write."""
    args = parsed(argv)
    args.folder.mkdir(parents=True, exist_ok=True)
    environments = PeerEnvironments(args.folder / "venvs", args.folder / "pip.log")
    environment = environments.get(PEER) if "peer" in args.stages else None
    folder = prepared(args.folder, anew=args.prepare)
    if args.prepare:
        print(f"{folder} and {args.folder / 'venvs'} are ready")
        return 0
    facts = machine.describe()
    date = datetime.date.today().isoformat()
    output = args.output or serving.RESULTS / f"{date}-{machine.label(facts)}.json"
    result = serving.begin(date, machine.commit(), facts)
    result["load_average_before"] = os.getloadavg()[0]
    result["peer_versions"] = {} if environment is None else environment.versions
    begun = time.perf_counter()
    measure(args, result, folder, None if environment is None else environment.python)
    result["seconds"] = round(time.perf_counter() - begun, 1)
    results.write(result, output)
    failed = serving.failures(result)
    print(json.dumps(serving.summary(result), indent=1))
    for line in failed:
        print(f"not reached: {line}")
    print(output)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
