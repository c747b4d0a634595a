"""What `import bgert` costs and drags in."""

import json
import subprocess
import sys

HEAVY = {
    "torch", "transformers", "tokenizers", "safetensors", "onnx", "onnxruntime", "tensorrt", "huggingface_hub",
    "sentencepiece", "pydantic_core", "orjson", "tqdm",
}  # fmt: skip


def python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_import_pulls_numpy_alone():
    loaded = python(
        "import sys, json, numpy; before = set(sys.modules); from bgert import *;"
        "new = set(sys.modules) - before;"
        "print(json.dumps(sorted({m.split('.')[0] for m in new if m.split('.')[0] not in sys.stdlib_module_names})))"
    )
    assert not HEAVY & set(loaded)
    # the editable install's import hook goes by its own name
    assert {name for name in loaded if not name.startswith("_bgert")} == {"bgert"}


def test_import_is_fast():
    """Beside numpy, which it needs, in the same processes: a busy machine slows both."""
    code = "import json, time; a = time.process_time(); import numpy; b = time.process_time(); import bgert;"
    code += "print(json.dumps([b - a, time.process_time() - b]))"
    measured = [python(code) for _ in range(5)]
    assert min(own for _, own in measured) < 2 * min(numpy for numpy, _ in measured)
