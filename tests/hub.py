"""A server that speaks the protocol of the Hugging Face Hub, for its real clients.

Source: the requests that huggingface_hub and datasets send, and the headers and codes that they read.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_WHO_ASKS = "/api/agent-harnesses"
"""What some clients look up about themselves."""
LARGE = (".safetensors", ".parquet")
"""Files that the Hub keeps apart (LFS): it redirects to them."""


@dataclass
class Repository:
    """Commits of files, and branches that name them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """A new commit of a branch; returns its id."""
        sha = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha


@dataclass
class Hub:
    """What the server has, what it shall do wrong, and what it was asked."""

    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    """By kind and name."""
    members: tuple[str, ...] = ()
    """Tokens that may see what is gated or private."""
    breaks: dict[str, int] = field(default_factory=dict)
    """How often a file's download is to break off in its middle."""
    lost: set[str] = field(default_factory=set)
    """Large files that the other host does not have."""
    silent_s: float = 0.0
    """How long nothing is answered."""
    status: int = 0
    """With what HTTP status everything fails."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and range of each request."""
    endpoint: str = ""
    store: str = ""
    """Where large files are: another host, which is to get no token."""

    def add(self, name: str, kind: str = "model", **traits: bool) -> Repository:
        return self.repositories.setdefault((kind, name), Repository(**traits))

    def downloads(self) -> list[str]:
        """Files whose content was asked for."""
        asked = [path for method, path, _ in self.requests if method == "GET"]
        return [path.rpartition("/")[2] for path in asked if "/resolve/" in path or "/blobs/" in path]


def files_of(directory: Path) -> dict[str, bytes]:
    """Those of a model's directory."""
    return {file.name: file.read_bytes() for file in directory.iterdir() if file.is_file()}


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve it at `hub.endpoint` meanwhile."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    hub.store = f"http://localhost:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((self.command, path, self.headers.get("Range") or ""))
        if self.hub.silent_s and path != _WHO_ASKS:
            time.sleep(self.hub.silent_s)
        try:
            if self.hub.status:
                raise _Refused(self.hub.status)
            self._route(path, body)
        except _Refused as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self._send(refused.status, b"{}", {name: text for name, text in headers.items() if text})

    def _route(self, path: str, body: bytes) -> None:
        parts = path.strip("/").split("/")
        if parts[0] == "blobs":
            assert "Authorization" not in self.headers, "the token went to another host"
            return self._blob(parts[1])
        if path == _WHO_ASKS:
            return self._json({})
        if parts[0] == "api":
            kind = parts[1].removesuffix("s")
            return self._api(kind, "/".join(parts[2:4]), parts[4:], body)
        kind = "dataset" if parts[0] == "datasets" else "model"
        parts = parts[kind == "dataset" :]
        return self._resolve(kind, "/".join(parts[:2]), parts[3:])

    def _repository(self, kind: str, name: str, *, for_files: bool = False) -> Repository:
        found = self.hub.repositories.get((kind, name))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token and token not in ("guest", *self.hub.members):
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        is_member = token in self.hub.members
        if found is None or (found.private and not is_member):
            raise _Refused(404 if token else 401, "RepoNotFound", "Repository not found")
        if found.gated and for_files and not is_member:
            raise _Refused(403 if token else 401, "GatedRepo", f"Access to {kind} {name} is restricted.")
        return found

    def _commit(self, repository: Repository, revision: str) -> str:
        sha = repository.branches.get(revision, revision)
        if sha not in repository.commits:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    def _api(self, kind: str, name: str, rest: list[str], body: bytes) -> None:
        if rest[:1] == ["auth-check"]:
            self._repository(kind, name, for_files=True)
            return self._json({})
        repository = self._repository(kind, name)
        what, tail = (rest[0], "/".join(rest[1:])) if rest else ("revision", "main")
        if what == "revision":
            sha = self._commit(repository, tail)
            siblings = [{"rfilename": path} for path in repository.commits[sha]]
            info = {"id": name, "sha": sha, "siblings": siblings, "private": repository.private}
            info["gated"] = "auto" if repository.gated else False
            return self._json(info)
        revision = _revision(repository, tail)
        files = repository.commits[self._commit(repository, revision)]
        folder = tail[len(revision) :].strip("/")
        if what == "tree":
            if folder and not any(path.startswith(f"{folder}/") for path in files):
                raise _Refused(404, "EntryNotFound", f"{folder} does not exist")
            recursive = "recursive=true" in self.path.lower()
            return self._json(_tree(files, folder and f"{folder}/", recursive=recursive))
        if what == "paths-info":
            wanted = json.loads(body)["paths"]
            folders = [_folder(path) for path in wanted if any(p.startswith(f"{path}/") for p in files)]
            return self._json([_entry(path, files[path]) for path in wanted if path in files] + folders)
        raise _Refused(404)

    def _resolve(self, kind: str, name: str, rest: list[str]) -> None:
        repository = self._repository(kind, name, for_files=True)
        revision = _revision(repository, "/".join(rest))
        sha = self._commit(repository, revision)
        path = "/".join(rest)[len(revision) + 1 :]
        commit = {"X-Repo-Commit": sha}
        if path not in repository.commits[sha]:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        content = repository.commits[sha][path]
        if path.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            linked = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{digest}"'}
            location = {"Location": f"{self.hub.store}/blobs/{digest}"}
            return self._send(302, b"", {**commit, **linked, **location})
        etag = hashlib.sha1(content).hexdigest()
        self._content(path, content, {**commit, "ETag": f'"{etag}"'})

    def _blob(self, digest: str) -> None:
        for repository in self.hub.repositories.values():
            for files in repository.commits.values():
                for path, content in files.items():
                    if hashlib.sha256(content).hexdigest() == digest and path not in self.hub.lost:
                        return self._content(path, content, {"ETag": f'"{digest}"'})
        raise _Refused(404)

    def _content(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        status, total = 200, len(content)
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **headers}
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            stop = min(int(last) + 1 if last else total, total)
            content, status = content[int(first) : stop], 206
            headers["Content-Range"] = f"bytes {first}-{stop - 1}/{total}"
        keep = len(content)
        if self.command == "GET" and self.hub.breaks.get(path, 0):
            self.hub.breaks[path] -= 1
            keep //= 2
        self._send(status, content, headers, keep=keep)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str], keep: int | None = None) -> None:
        """Only the first `keep` bytes of the body, after which the connection ends."""
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        with suppress(BrokenPipeError, ConnectionResetError):  # who asked has given up
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[:keep])
        if keep is not None and keep < len(body):
            self.close_connection = True


def _revision(repository: Repository, path: str) -> str:
    """The branch, which may have slashes, or the commit that a path begins with."""
    known = (*repository.branches, *repository.commits)
    return next((name for name in known if f"{path}/".startswith(f"{name}/")), path.split("/")[0])


def _tree(files: dict[str, bytes], folder: str, *, recursive: bool) -> list[dict[str, object]]:
    """All that is below a folder, or its own files and folders."""
    below = {path: content for path, content in files.items() if path.startswith(folder)}
    if recursive:
        return [_entry(path, content) for path, content in below.items()]
    inner = {path[len(folder) :].split("/")[0]: path for path in below}
    return [
        _entry(path, below[path]) if path == folder + name else _folder(folder + name)
        for name, path in inner.items()
    ]


def _folder(path: str) -> dict[str, object]:
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}


def _entry(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {
        "type": "file",
        "path": path,
        "size": len(content),
        "oid": hashlib.sha1(content).hexdigest(),
    }
    if path.endswith(LARGE):
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
    return entry
