"""A stand-in for the Hugging Face hub: the routes that huggingface_hub asks for, served on loopback."""

import hashlib
import json
import os
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLD_COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


class Hub(BaseHTTPRequestHandler):
    """One repository, `org/model` unless `name` says, with branch `main` and tag `v1`; `org/gated` needs a login."""

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
        name = self.server.name
        if "org/gated" in path:
            self.reply(403, b"gated", X_Error_Code="GatedRepo", X_Error_Message="Access to org/gated is restricted")
        elif name not in path:
            self.reply(401, b"Repository not found", X_Error_Code="RepoNotFound")
        elif found := re.fullmatch(rf"/api/models/{name}(?:/revision/([^/]+))?", path):
            self.repository(found[1] or "main")
        elif re.fullmatch(rf"/api/models/{name}/tree/[^/]+", path):
            self.reply(200, json.dumps(self.tree()).encode(), Content_Type="application/json")
        elif found := re.fullmatch(rf"/{name}/resolve/([^/]+)/(.+)", path):
            self.file(found[1], found[2])
        else:
            self.reply(404, b"?", X_Error_Code="EntryNotFound")

    do_HEAD = do_GET  # noqa: N815

    def repository(self, revision):
        commit = {"main": COMMIT, COMMIT: COMMIT, "v1": OLD_COMMIT, OLD_COMMIT: OLD_COMMIT}.get(revision)
        if commit is None:
            self.reply(404, b"Revision not found", X_Error_Code="RevisionNotFound")
            return
        name = self.server.name
        info = {"_id": "1", "id": name, "modelId": name, "sha": commit, "private": False}
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


@contextmanager
def serve(files, name="org/model"):
    """A server whose repository holds `files` (name to bytes); `requests` lists what was asked."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.requests, server.name = files, [], name
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def environment(server, cache, *, offline=False):
    """Environment variables that point huggingface_hub at the server."""
    variables = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "*",
    }
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE"):
        variables.pop(name, None)
    return variables


def files_of(folder):
    """Name to bytes of all files of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
