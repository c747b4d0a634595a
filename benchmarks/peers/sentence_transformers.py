"""sentence-transformers with its torch, ONNX or OpenVINO backend; batches of 32, sorted by it, as by default."""

from __future__ import annotations

from typing import Any

BATCH = 32


def backend_arguments(task: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Path of the model and the arguments that choose the backend."""
    backend = task["options"].get("backend", "torch")
    if backend == "torch":
        return task["checkpoint"], {"backend": "torch"}
    if backend == "onnx":
        kwargs = {"provider": "CPUExecutionProvider", "file_name": task["options"].get("file", "onnx/model.onnx")}
        return task["exports"]["onnx"], {"backend": "onnx", "model_kwargs": kwargs}
    config = {"INFERENCE_PRECISION_HINT": "f32"} if task["options"].get("precision") == "f32" else {}
    return task["exports"]["openvino"], {"backend": "openvino", "model_kwargs": {"ov_config": config}}


def describe(task: dict[str, Any], model: Any) -> dict[str, Any]:
    """What the results say; for OpenVINO the precision that it really chose."""
    settings: dict[str, Any] = {"batch": BATCH, "backend": task["options"].get("backend", "torch")}
    if settings["backend"] == "openvino":
        compiled = getattr(model, "request", None)
        settings["precision"] = (
            compiled.get_property("INFERENCE_PRECISION_HINT").to_string() if compiled is not None else "unknown"
        )
    return settings


def export(task: dict[str, Any]) -> None:
    """Save the model as ONNX or OpenVINO IR, as `save_pretrained` of sentence-transformers does."""
    import sentence_transformers

    kind = task["options"]["backend"]
    make = (
        sentence_transformers.SentenceTransformer if task["kind"] == "encoder" else sentence_transformers.CrossEncoder
    )
    arguments = {} if task["kind"] == "encoder" else {"max_length": task["max_length"]}
    model = make(task["checkpoint"], device="cpu", backend=kind, **arguments)
    model.save_pretrained(task["exports"][kind])
    if kind == "onnx":
        sentence_transformers.export_optimized_onnx_model(model, "O3", task["exports"][kind])


def load(task: dict[str, Any]) -> Any:
    """Load with the asked backend."""
    import torch

    torch.set_num_threads(task["threads"])
    return Encoder(task) if task["kind"] == "encoder" else Reranker(task)


class Encoder:
    """`SentenceTransformer`."""

    def __init__(self, task: dict[str, Any]) -> None:
        from sentence_transformers import SentenceTransformer

        path, arguments = backend_arguments(task)
        self.model = SentenceTransformer(path, device="cpu", **arguments)
        self.model.max_seq_length = task["max_length"]
        self.settings = describe(task, getattr(self.model[0], "auto_model", None))

    def encode(self, texts: list[str]) -> Any:
        """Vectors."""
        return self.model.encode(texts, batch_size=BATCH, show_progress_bar=False, normalize_embeddings=True)


class Reranker:
    """`CrossEncoder`, raw logits."""

    def __init__(self, task: dict[str, Any]) -> None:
        import torch
        from sentence_transformers import CrossEncoder

        path, arguments = backend_arguments(task)
        self.model = CrossEncoder(path, device="cpu", max_length=task["max_length"], **arguments)
        self.identity = torch.nn.Identity()
        self.settings = describe(task, getattr(self.model, "model", None))

    def score(self, pairs: list[tuple[str, str]]) -> Any:
        """Raw logits."""
        return self.model.predict(pairs, batch_size=BATCH, show_progress_bar=False, activation_fn=self.identity)
