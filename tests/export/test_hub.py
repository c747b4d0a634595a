"""Downloads, from a stand-in for the hub that serves the routes huggingface_hub asks for."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLD_COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


class Hub(BaseHTTPRequestHandler):
    """One repository, `org/model`, with a branch `main` and a tag `v1`; `org/gated` needs a login."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        self.server.requests.append(f"{self.command} {self.path}")

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if "org/gated" in path:
            self.reply(403, b"gated", X_Error_Code="GatedRepo", X_Error_Message="Access to org/gated is restricted")
        elif "org/model" not in path:
            self.reply(401, b"Repository not found", X_Error_Code="RepoNotFound")
        elif found := re.fullmatch(r"/api/models/org/model(?:/revision/([^/]+))?", path):
            self.repository(found[1] or "main")
        elif re.fullmatch(r"/api/models/org/model/tree/[^/]+", path):
            self.reply(200, json.dumps(self.tree()).encode(), Content_Type="application/json")
        elif found := re.fullmatch(r"/org/model/resolve/([^/]+)/(.+)", path):
            self.file(found[1], found[2])
        else:
            self.reply(404, b"?", X_Error_Code="EntryNotFound")

    do_HEAD = do_GET  # noqa: N815

    def repository(self, revision):
        commit = {"main": COMMIT, COMMIT: COMMIT, "v1": OLD_COMMIT, OLD_COMMIT: OLD_COMMIT}.get(revision)
        if commit is None:
            self.reply(404, b"Revision not found", X_Error_Code="RevisionNotFound")
            return
        info = {"_id": "1", "id": "org/model", "modelId": "org/model", "sha": commit, "private": False}
        info |= {"tags": [], "downloads": 0, "likes": 0}
        info["siblings"] = [{"rfilename": name} for name in self.server.files]
        self.reply(200, json.dumps(info).encode(), Content_Type="application/json")

    def tree(self):
        return [
            {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
            for name, body in self.server.files.items()
        ]

    def file(self, commit, name):
        body = self.server.files.get(name)
        if body is None:
            self.reply(404, b"no such file", X_Error_Code="EntryNotFound")
            return
        etag = f'"{hashlib.sha1(body).hexdigest()}"'
        self.reply(200, body, ETag=etag, X_Repo_Commit=commit, Content_Type="application/octet-stream")


@pytest.fixture
def hub(make_checkpoint, sentence_transformers_files):
    folder = make_checkpoint(files=sentence_transformers_files("cls"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files = {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
    server.files |= {"pytorch_model.bin": b"x" * 1000, "onnx/model.onnx": b"y" * 1000, "README.md": b"#"}
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def bgert(hub, tmp_path):
    """Runs the command line against the stand-in."""

    def run(*arguments, offline=False):
        environment = os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_OFFLINE": "1" if offline else "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "*",
        }
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE"):
            environment.pop(name, None)
        code = "import sys; from bgert.cli import main; sys.exit(main(sys.argv[1:]))"
        return subprocess.run(
            [sys.executable, "-c", code, "export", *arguments, "--no-verify"],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


def downloaded(hub):
    return {line.split("/", 5)[-1] for line in hub.requests if line.startswith("GET") and "/resolve/" in line}


def test_download_and_offline(hub, bgert, tmp_path):
    done = bgert("org/model", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert f"downloading org/model from http://127.0.0.1:{hub.server_port}" in done.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["source"]["id"], manifest["source"]["revision"]) == ("org/model", COMMIT)
    assert manifest["pooling"] == "cls"
    names = downloaded(hub)
    assert {"config.json", "model.safetensors", "vocab.txt", "1_Pooling/config.json", "modules.json"} <= names
    assert not {"pytorch_model.bin", "onnx/model.onnx", "README.md"} & names

    hub.requests.clear()
    done = bgert("org/model", "-o", "again", offline=True)
    assert done.returncode == 0, done.stderr
    assert hub.requests == []
    assert json.loads((tmp_path / "again" / "manifest.json").read_text())["source"]["revision"] == COMMIT


def test_revision(hub, bgert, tmp_path):
    done = bgert("org/model", "-o", "out", "--revision", "v1")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["source"]["revision"] == OLD_COMMIT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["org/missing"], "there is no folder org/missing here and no model of this name"),
        (["org/gated"], "org/gated is gated: accept its terms"),
        (["org/model", "--revision", "v9"], "org/model has no revision 'v9'"),
        (["./org/model"], "no such checkpoint folder: './org/model'"),
    ],
)
def test_refusals(bgert, tmp_path, arguments, message):
    done = bgert(*arguments, "-o", "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_offline_and_not_in_the_cache(bgert):
    done = bgert("org/model", "-o", "out", offline=True)
    assert done.returncode == 2
    assert "org/model is not in the cache" in done.stderr
    assert "switched off (HF_HUB_OFFLINE)" in done.stderr


def test_only_a_pickle(hub, bgert):
    import io

    import torch
    from safetensors.torch import load

    buffer = io.BytesIO()
    torch.save(load(hub.files.pop("model.safetensors")), buffer)
    hub.files["pytorch_model.bin"] = buffer.getvalue()
    done = bgert("org/model", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert "pytorch_model.bin" in downloaded(hub)


def test_no_weights(hub, bgert):
    del hub.files["model.safetensors"], hub.files["pytorch_model.bin"]
    done = bgert("org/model", "-o", "out")
    assert done.returncode == 2
    assert "org/model has no weights" in done.stderr


def test_unreachable(hub, bgert, tmp_path):
    assert bgert("org/model", "-o", "out").returncode == 0
    hub.shutdown()
    hub.server_close()
    done = bgert("org/model", "-o", "again")
    assert done.returncode == 0, done.stderr
    assert "taking org/model from the cache, as the hub" in done.stderr
    done = bgert("org/other", "-o", "other")
    assert done.returncode == 2
    assert "org/other is not in the cache, and the hub" in done.stderr
    assert len(done.stderr.splitlines()) == 1
