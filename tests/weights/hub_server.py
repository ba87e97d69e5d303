"""A stand-in of the Hugging Face hub on this machine: what its client asks of one, and its failures."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits by their hash, and the names that point to them."""

    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: Files, *refs: str) -> str:
        """Adds a commit with these files and points the names, ``main`` if none is given, to it."""
        listed = repr((len(self.commits), sorted(files.items()))).encode()
        commit = hashlib.sha1(listed).hexdigest()
        self.commits[commit] = files
        self.refs |= dict.fromkeys(refs or ("main",), commit)
        return commit

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Hub:
    """The repositories, what was asked of the hub, and how it shall fail."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    token: str = "hf_stand_in"
    status: int = 0  # answers every request with it
    cuts: int = 0  # breaks so many bodies off in the middle
    short: bool = False  # sends fewer bytes than it announced when it was asked for the size
    moved: bool = False  # sends who asks for a plain file to another address of this machine
    endpoint: str = ""
    stop: Any = None

    def add(self, repo: str, files: Files) -> Repository:
        repository = self.repositories[repo] = Repository()
        repository.commit(files)
        return repository


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """A hub that listens on a port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    hub.stop = stop
    try:
        yield hub
    finally:
        stop()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hub.status:
            return self._send(self.hub.status, b"{}")
        routes: dict[str, Callable[..., None]] = {
            r"/api/repos/create": self._create,
            r"/api/validate-yaml": self._validate,
            r"/api/models/([^/]+/[^/]+)/(tree|revision|preupload|commit|branch)/([^/]+)": self._repository,
            r"/([^/]+/[^/]+)/resolve/(.+)": self._resolve,
            r"/files/(.+)": self._plain,
        }
        for pattern, answer in routes.items():
            if match := re.fullmatch(pattern, path):
                return answer(*match.groups())
        return self._send(404, b"{}")

    def _create(self) -> None:
        asked = json.loads(self.body)
        repo = f"{asked['organization']}/{asked['name']}"
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._send(401, b'{"error": "Invalid username or password."}')
        status = 409 if repo in self.hub.repositories else 200
        if status == 200:
            made = self.hub.add(repo, {".gitattributes": b""})
            made.private = bool(asked.get("private")) or asked.get("visibility") == "private"
        return self._json({"url": f"{self.hub.endpoint}/{repo}"}, status)

    def _validate(self) -> None:
        self._json({"errors": [], "warnings": []})

    def _repository(self, repo: str, action: str, revision: str) -> None:
        repository = self._allowed(repo)
        if repository is None:
            return
        commit = repository.resolve(revision)
        if action == "branch":
            repository.refs.setdefault(revision, repository.refs["main"])
            return self._json({}, 409 if commit else 200)
        if commit is None:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        files = repository.commits[commit]
        if action == "revision":
            return self._json({"id": repo, "sha": commit, "xetEnabled": False})
        if action == "tree":
            return self._json(
                [
                    {"type": "file", "path": path, "size": len(content), "oid": _etag(content)}
                    for path, content in files.items()
                ]
            )
        if action == "preupload":
            asked = [file["path"] for file in json.loads(self.body)["files"]]
            answer = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in asked]
            return self._json({"files": answer})
        lines = [json.loads(line) for line in self.body.splitlines()]
        added = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        made = repository.commit(files | added, revision)
        return self._json({"commitUrl": f"{self.hub.endpoint}/{repo}/commit/{made}", "commitOid": made})

    def _resolve(self, repo: str, rest: str) -> None:
        repository = self._allowed(repo)
        if repository is None:
            return
        revisions = [*repository.refs, *repository.commits]
        revision = next((each for each in revisions if rest.startswith(f"{each}/")), None)
        if revision is None:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        commit = repository.resolve(revision)
        headers = {"X-Repo-Commit": str(commit)}
        content = repository.commits[str(commit)].get(rest[len(revision) + 1 :])
        if content is None:
            return self._send(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
        return self._send_file(content, headers)

    def _plain(self, path: str) -> None:
        """A file at ``/files/NAME``, of the repository ``plain/files``."""
        if self.hub.moved:
            # No name of this machine that anyone trusts.
            place = self.hub.endpoint.replace("127.0.0.1", "0.0.0.0")
            self.hub.moved = False
            return self._send(302, b"", {"Location": f"{place}/files/{path}"})
        files = self.hub.repositories["plain/files"]
        content = files.commits[files.refs["main"]].get(path)
        if content is None:
            return self._send(404, b"")
        return self._send_file(content, {})

    def _allowed(self, repo: str) -> Repository | None:
        """The repository, or None once the client was told why not."""
        repository = self.hub.repositories.get(repo)
        known = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if repository is None or (repository.private and not known):
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif repository.gated and not known:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        else:
            return repository
        return None

    def _send_file(self, content: bytes, headers: dict[str, str]) -> None:
        headers = headers | {"ETag": f'"{_etag(content)}"', "Accept-Ranges": "bytes"}
        if self.command == "HEAD":
            return self._send(200, content, headers)
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if start is not None:
            first, total = int(start[1]), len(content)
            headers["Content-Range"] = f"bytes {first}-{total - 1}/{total}"
            content = content[first:]
        if self.hub.short:
            content = content[:-3]
        keep = None
        if self.hub.cuts:
            self.hub.cuts -= 1
            keep = len(content) // 2
        return self._send(206 if start else 200, content, headers, keep)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, keep: int | None = None
    ) -> None:
        """Announces the whole body and sends the first ``keep`` bytes of it, None for all."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:keep])


def _etag(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
