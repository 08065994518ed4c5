"""The Hugging Face hub, as far as its client needs it to fetch a repository, or to create one and upload a folder."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_ofTheOwner"
"""The token that may write."""


class Hub:
    """The part of the Hugging Face hub that its client needs to fetch a repository at a commit, and to push one."""

    def __init__(self, repositories: dict[str, tuple[str, dict[str, bytes]]]) -> None:
        self.repositories, self.requests, self.breaks = repositories, [], set()
        self.private: set[str] = set()
        self._objects: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                hub.answer(self, head=True)

            def do_GET(self) -> None:
                hub.answer(self, head=False)

            def do_POST(self) -> None:
                hub.receive(self)

            def do_PUT(self) -> None:
                hub.receive(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler, head: bool) -> None:
        self.requests.append((request.command, request.path))
        path = request.path.split("?")[0]
        for name, (commit, files) in self.repositories.items():
            kind, repository = name.split(":")
            api = f"/api/{kind}s/{repository}"
            if path == f"{api}/revision/{commit}" or path == f"{api}/revision/main" or path == api:
                siblings = [{"rfilename": file} for file in files]
                about = {"id": repository, "sha": commit, "siblings": siblings, "private": name in self.private}
                return self.reply(request, json.dumps(about).encode())
            if path.startswith((f"{api}/tree/{commit}", f"{api}/tree/main")):
                tree = [{"type": "file", "path": f, "size": len(c), "oid": sha1(c)} for f, c in files.items()]
                return self.reply(request, json.dumps(tree).encode())
            prefix = "datasets/" if kind == "dataset" else ""
            match = re.fullmatch(rf"/{prefix}{re.escape(repository)}/resolve/({commit}|main)/(.+)", path)
            if match and match[2] in files:
                return self.send(request, files[match[2]], commit, head)
            if path.startswith((f"{api}/revision/", f"{api}/tree/")):
                return self.reply(request, b'{"error": "Invalid rev id"}', 404, {"X-Error-Code": "RevisionNotFound"})
        return self.reply(request, b'{"error": "not found"}', 404, {"X-Error-Code": "RepoNotFound"})

    def receive(self, request: BaseHTTPRequestHandler) -> None:
        """What changes the hub, for whoever has the token; large files come first, then a commit that names them."""
        self.requests.append((request.command, request.path))
        path, body = request.path.split("?")[0], request.rfile.read(int(request.headers["Content-Length"]))
        if request.command == "PUT":
            self._objects[path.rsplit("/", 1)[1]] = body
            return self.reply(request, b"")
        if path == "/api/validate-yaml":
            return self.reply(request, b'{"errors": [], "warnings": []}')
        if request.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.reply(request, b'{"error": "You have no rights here"}', 403)
        if path == "/api/repos/create":
            return self._create(request, json.loads(body))
        repository = re.split(r"/preupload/|/commit/|\.git/", path.removeprefix("/api/models"))[0].strip("/")
        if "/preupload/" in path:
            modes = [
                {"path": file["path"], "uploadMode": mode_of(file["path"]), "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.reply(request, json.dumps({"files": modes}).encode())
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.url}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self.reply(request, json.dumps({"transfer": "basic", "objects": objects}).encode())
        files = self.repositories[f"model:{repository}"][1]
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = self._objects[line["value"]["oid"]]
        commit = {"commitUrl": f"{self.url}/{repository}/commit/{'0' * 40}", "commitOid": "0" * 40}
        return self.reply(request, json.dumps(commit).encode())

    def _create(self, request: BaseHTTPRequestHandler, wanted: dict[str, Any]) -> None:
        name = f"model:{wanted['organization']}/{wanted['name']}"
        exists = name in self.repositories
        if not exists:
            self.repositories[name] = ("0" * 40, {})
            self.private |= {name} if wanted.get("visibility") == "private" else set()
        self.reply(
            request, json.dumps({"url": f"{self.url}/{name.removeprefix('model:')}"}).encode(), 409 if exists else 200
        )

    def reply(self, request: Any, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        request.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(body), **(headers or {})}.items():
            request.send_header(name, str(value))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    def send(self, request: Any, content: bytes, commit: str, head: bool) -> None:
        start = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Content-Length": len(content) - start,
            "Accept-Ranges": "bytes",
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        request.send_response(206 if start else 200)
        for name, value in headers.items():
            request.send_header(name, str(value))
        request.end_headers()
        if head:
            return
        if any(request.path.endswith(suffix) for suffix in self.breaks):  # the line goes dead in the middle of the file
            request.wfile.write(content[start : start + (len(content) - start) // 2])
            request.wfile.flush()
            request.close_connection = True
            request.connection.close()
            return
        request.wfile.write(content[start:])


def sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def mode_of(file: str) -> str:
    """How a file is uploaded: as the hub decides for most names."""
    return "lfs" if file.endswith((".safetensors", ".png")) else "regular"
