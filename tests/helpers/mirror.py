"""A small model hub on this machine: as much of its protocol as pushing and pulling models needs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_secretsecretsecret"
"""The one token that may write."""


@dataclass
class Repository:
    """Versions of files, the newest last; `gated` and `private` as the hub has them."""

    versions: list[dict[str, bytes]] = field(default_factory=list)
    private: bool = False
    gated: bool = False

    def commit(self, files: dict[str, bytes]) -> str:
        self.versions.append({**(self.versions[-1] if self.versions else {}), **files})
        return self.sha(len(self.versions) - 1)

    @staticmethod
    def sha(number: int) -> str:
        return f"{number + 1:040x}"

    def at(self, revision: str) -> dict[str, bytes] | None:
        shas = [self.sha(number) for number in range(len(self.versions))]
        if revision == "main":
            return self.versions[-1] if self.versions else {}
        return self.versions[shas.index(revision)] if revision in shas else None


@dataclass
class Mirror:
    """What the mirror holds, and the requests that it got."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    wrong_digest: bool = False
    """Tell a SHA-256 that is not the file's."""
    answers: int | None = None
    """A status with which every request is answered."""

    def info(self, name: str, repository: Repository, revision: str) -> dict[str, Any] | None:
        files = repository.at(revision)
        if files is None:
            return None
        number = len(repository.versions) - 1 if revision == "main" else int(revision, 16) - 1
        card = files.get("README.md", b"").decode()
        library = re.search(r"^library_name: (\S+)", card, re.MULTILINE)
        tags = re.findall(r"^- (\S+)$", card.split("---")[1], re.MULTILINE) if card.startswith("---") else []
        siblings = [
            {
                "rfilename": path,
                "size": len(content),
                "lfs": {
                    "sha256": "0" * 64 if self.wrong_digest else hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "pointerSize": 100,
                },
            }
            for path, content in files.items()
        ]
        return {
            "_id": "1", "id": name, "modelId": name, "sha": repository.sha(max(0, number)), "private": repository.private,
            "gated": repository.gated, "disabled": False, "tags": tags, "downloads": 0, "likes": 0, "siblings": siblings,
            "lastModified": "2026-11-29T00:00:00.000Z", "createdAt": "2026-11-29T00:00:00.000Z",
            **({"library_name": library.group(1), "cardData": {"library_name": library.group(1)}} if library else {}),
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mirror: Mirror

    def log_message(self, *_: object) -> None:  # requests are kept in the mirror
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 (the names are http.server's)

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        path = self.path.split("?")[0]
        self.mirror.requests.append(f"{self.command} {path}")
        if self.mirror.answers is not None:
            self._send(self.mirror.answers, {"error": "as the test wants"})
            return
        writes = self.command in ("POST", "PUT") and not path.endswith("/paths-info/main")
        if writes and self.headers.get("Authorization") != f"Bearer {TOKEN}" and self.command == "POST":
            self._send(401, {"error": "Invalid username or password."})
            return
        for pattern, handle in (
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", self._validate),
            (r"/api/models/([^/]+/[^/]+)/preupload/main", self._preupload),
            (r"/api/models/([^/]+/[^/]+)/commit/main", self._commit),
            (r"/api/models/([^/]+/[^/]+)(?:/revision/(\w+))?", self._info),
            (r"/api/models/([^/]+/[^/]+)/tree/(\w+)", self._tree),
            (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            (r"/objects/(\w+)", self._object),
            (r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", self._resolve),
        ):
            found = re.fullmatch(pattern, path)
            if found:
                handle(body, *found.groups())
                return
        self._send(404, {"error": f"no such route: {path}"})

    def _send(self, status: int, values: object, **headers: str) -> None:
        content = values if isinstance(values, bytes) else json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header(
            "Content-Type", "application/octet-stream" if isinstance(values, bytes) else "application/json"
        )
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _missing(self) -> None:
        self._send(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")

    def _create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.mirror.repositories.setdefault(name, Repository(private=private))
        self._send(200, {"url": f"{self.mirror.address}/{name}", "name": name, "id": "1"})

    def _validate(self, body: bytes) -> None:
        wrong = 'license: "nonsense' in json.loads(body)["content"].replace("license: nonsense", 'license: "nonsense')
        errors = [{"message": '"license" must be one of [apache-2.0, mit, other]'}] if wrong else []
        self._send(400 if wrong else 200, {"errors": errors, "warnings": []})

    def _preupload(self, body: bytes, name: str) -> None:
        del name
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._send(200, {"files": modes})

    def _batch(self, body: bytes, name: str) -> None:
        del name
        objects = [
            {
                **wanted,
                "actions": {"upload": {"href": f"{self.mirror.address}/objects/{wanted['oid']}", "header": {}}},
            }
            for wanted in json.loads(body)["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def _object(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.mirror.objects[oid] = body
        self._send(200, {})

    def _commit(self, body: bytes, name: str) -> None:
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.mirror.objects[value["oid"]]
        sha = self.mirror.repositories[name].commit(files)
        self._send(200, {"commitUrl": f"{self.mirror.address}/{name}/commit/{sha}", "commitOid": sha, "hookOutput": ""})

    def _tree(self, _: bytes, name: str, revision: str) -> None:
        files = self.mirror.repositories[name].at(revision) or {}
        self._send(
            200,
            [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ],
        )

    def _info(self, body: bytes, name: str, revision: str | None) -> None:
        del body
        repository = self.mirror.repositories.get(name)
        if repository is None:
            self._missing()
            return
        found = self.mirror.info(name, repository, revision or "main")
        if found is None:
            self._send(404, {"error": "Revision not found"}, X_Error_Code="RevisionNotFound")
        else:
            self._send(200, found)

    def _resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        del body
        repository = self.mirror.repositories.get(name)
        if repository is None:
            self._missing()
        elif repository.gated:
            self._send(403, {"error": "restricted"}, X_Error_Code="GatedRepo", X_Error_Message="Access is restricted.")
        else:
            content = (repository.at(revision) or {}).get(path)
            if content is None:
                self._send(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
            else:
                digest = hashlib.sha256(content).hexdigest()
                self._send(200, content, X_Repo_Commit=revision, ETag=f'"{digest}"')


@contextmanager
def mirror() -> Iterator[Mirror]:
    """A mirror that answers until the block is left."""
    found = Mirror()
    handler = type("Handler", (_Handler,), {"mirror": found})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    found.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
