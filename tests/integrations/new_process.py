"""Code in a Python of its own, as the next start of a program is."""

import json
import os
import subprocess
import sys
from typing import Any


def result_of(code: str, **values: Any) -> Any:
    """What `code` leaves in `result` (JSON), run by a new interpreter with `values` (JSON) as its names.

    Raises:
        AssertionError: it failed; the message is what it wrote.
    """
    script = f"import json, sys\nglobals().update(json.loads(sys.argv[1]))\n{code}\nprint(json.dumps(result))"
    given = json.dumps(values, default=str)
    done = subprocess.run([sys.executable, "-c", script, given], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
