"""OpenVINO as someone drives it who knows it: pooling in the graph, texts sorted by token length, an AsyncInferQueue.

For sets one stream a core and batches of at most 512 padded tokens, the best of 8 and 32 texts, 512 and 1,024 tokens on
the machine of the committed results; for single texts the LATENCY hint.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peers.packing import batches_by_length, padded, tokenizer_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

PADDED_TOKENS = 512


def load(task: dict[str, Any]) -> Any:
    """Compile the intermediate representation that the OpenVINO backend of sentence-transformers exported."""
    return Model(task) if task["kind"] == "encoder" else Scores(task)


def with_pooling(model: Any, pooling: str) -> Any:
    """The model with a vector of length one as its only output."""
    import openvino
    from openvino import opset13 as op

    hidden = model.outputs[0].get_node().input_value(0)
    if pooling == "cls":
        vectors = op.gather(hidden, op.constant(np.int64(0)), op.constant(np.int64(1)))
    else:
        mask = next(p for p in model.get_parameters() if "attention_mask" in p.output(0).get_names())
        weights = op.unsqueeze(op.convert(mask, "f32"), op.constant(np.int64(2)))
        axis = op.constant(np.int64(1))
        vectors = op.divide(op.reduce_sum(op.multiply(hidden, weights), axis), op.reduce_sum(weights, axis))
    unit = op.normalize_l2(vectors, op.constant(np.array([1], np.int64)), 1e-12, "max")
    return openvino.Model([unit], model.get_parameters())


class Model:
    """One compiled model and its queue."""

    def __init__(self, task: dict[str, Any]) -> None:
        import openvino

        self.tokenizer = tokenizer_of(task["checkpoint"], task["max_length"])
        self.pad_id = task["pad_id"]
        core = openvino.Core()
        model = core.read_model(Path(task["exports"]["openvino"]) / "openvino" / "openvino_model.xml")
        if task["kind"] == "encoder":
            model = with_pooling(model, task["pooling"])
        threads, latency = task["threads"], task["mode"] == "latency"
        config = {"INFERENCE_NUM_THREADS": str(threads)}
        config |= {"PERFORMANCE_HINT": "LATENCY"} if latency else {"NUM_STREAMS": str(threads)}
        if task["options"]["precision"] == "f32":
            config["INFERENCE_PRECISION_HINT"] = "f32"
        compiled = core.compile_model(model, "CPU", config)
        self.inputs = {name for entry in compiled.inputs for name in entry.get_names()}
        self.columns = compiled.outputs[0].partial_shape[1].get_length()
        self.queue = openvino.AsyncInferQueue(compiled, 1 if latency else 2 * threads)
        self.queue.set_callback(self._store)
        self.settings = {
            "mode": task["mode"],
            "precision": compiled.get_property("INFERENCE_PRECISION_HINT").to_string(),
            "streams": compiled.get_property("NUM_STREAMS"),
            "padded_tokens": PADDED_TOKENS,
        }

    def encode(self, texts: list[Any]) -> NDArray[np.float32]:
        """Vectors."""
        encodings = self.tokenizer.encode_batch(texts)
        lengths = np.array([len(encoding.ids) for encoding in encodings])
        self.rows = np.empty((len(texts), self.columns), np.float32)
        for rows in batches_by_length(lengths, tokens=PADDED_TOKENS):
            feeds = padded(encodings, rows, self.pad_id)
            self.queue.start_async({name: value for name, value in feeds.items() if name in self.inputs}, rows)
        self.queue.wait_all()
        return self.rows

    def _store(self, request: Any, rows: NDArray[np.intp]) -> None:
        self.rows[rows] = request.get_output_tensor(0).data


class Scores(Model):
    """A cross-encoder."""

    def score(self, pairs: list[tuple[str, str]]) -> NDArray[np.float32]:
        """Raw logits."""
        return self.encode(pairs)[:, 0]
