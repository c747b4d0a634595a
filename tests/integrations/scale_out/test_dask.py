"""The Dask recipe of docs/SCALE.md, as a program, with a worker that is killed."""

import subprocess
import sys
import threading


def test_the_recipe_with_a_killed_worker(example, check, tools, tmp_path):
    program, target = tmp_path / "program.py", tmp_path / "vectors"
    program.write_text(
        example("dask", **{"threads_per_worker=1": "threads_per_worker=1, dashboard_address=None"}), "utf-8"
    )
    run = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    printed = []
    reader = threading.Thread(target=lambda: printed.extend(run.stdout))
    reader.start()
    try:
        tools.wait_for(lambda: list(target.glob("*.parquet")), run)
        tools.kill(tools.processes(r"spawn_main", run.pid)[0])
        assert run.wait(300) == 0, printed
    finally:
        run.kill()
        reader.join()
    assert any("Restarting worker" in line or "Killed" in line or "died" in line for line in printed), printed
    check(target)
