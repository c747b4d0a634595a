"""The Dask recipe of docs/SCALE.md, as a program, with a worker that is killed."""

import os
import signal


def test_the_recipe_with_a_killed_worker(example, program, check, tmp_path):
    target = tmp_path / "vectors"
    code = example("dask", **{"threads_per_worker=1)": "threads_per_worker=1, dashboard_address=None)"})
    with program(code) as running:
        running.wait_for(lambda: list(target.glob("*.parquet")))
        os.kill(running.below("spawn_main")[0], signal.SIGKILL)
        assert "Restarting worker" in running.end()
    check(target)
