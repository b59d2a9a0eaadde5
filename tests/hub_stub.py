"""A hub on this machine: serves folders as repositories, as far as the hub's clients need it for reading.

The tree is `root/models/owner/name/...` and `root/datasets/owner/name/...`; every repository has the one branch `main`.
"""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_of_the_stub"
# api/models/owner/name[/revision/main | /tree/main[/folder] | /paths-info/main] and owner/name/resolve/main/file; the same of datasets
_PAGE = re.compile(
    r"(?:api/(?=models/|datasets/)|(?!api/))(models/|datasets/)?([^/]+/[^/]+)(?:/(resolve|revision|tree|paths-info)/([^/]+)(?:/(.+))?)?"
)


class Hub:
    """What is served and what was asked for. Files of `gated` repositories need the token, as on the real hub; their listings do not.

    `broken` ids answer everything with 500.
    """

    def __init__(self, root: Path, gated=(), broken=()):
        self.root, self.gated, self.broken = root, set(gated), set(broken)
        self.requests: list[tuple[str, str]] = []
        self.address = ""

    @property
    def fetched(self) -> list[str]:
        """Names of the files that were downloaded, each time."""
        return [path.split("/resolve/")[1].split("/", 1)[1] for command, path in self.requests if command == "GET" and "/resolve/" in path]


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, code: str = "", message: str = ""):
        super().__init__(message)
        self.status, self.headers = status, {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


@contextmanager
def serving(root: Path, gated=(), broken=()):
    """The hub, its address in `address`, until the block ends."""
    hub = Hub(Path(root), gated, broken)

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def commit_of(kind: str, name: str) -> str:
    return hashlib.sha1(f"{kind}/{name}".encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Hub

    def do_GET(self):
        self._reply()

    def do_HEAD(self):
        self._reply()

    def do_POST(self):
        self._reply(parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()))

    def _reply(self, form=None):
        path = unquote(urlsplit(self.path).path).strip("/")
        self.served.requests.append((self.command, path))
        try:
            headers, body = self._answer(path, form or {})
            status = 200
        except Refused as refused:
            status, headers = refused.status, refused.headers
            body = json.dumps({"error": str(refused)}).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _answer(self, path: str, form: dict) -> tuple[dict, bytes]:
        """Headers and body of a page, or Refused."""
        asked = _PAGE.fullmatch(path)
        if not asked:
            raise Refused(404, message=f"no such page: {path}")
        kind, repository, action, revision, inner = (part or "" for part in asked.groups())
        kind = kind.strip("/") or "models"
        folder = self._folder(kind, repository)
        commit = commit_of(kind, repository)
        if revision not in ("", "main", commit):
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if action == "resolve":
            return self._file(folder, inner, commit, gated=repository in self.served.gated)
        if action in ("", "revision"):
            files = [{"rfilename": entry["path"]} for entry in _entries(folder, folder, recursive=True) if entry["type"] == "file"]
            answer = {"id": repository, "sha": commit, "private": False, "gated": False, "tags": [], "siblings": files}
        elif action == "tree":
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() in ("true", "1")
            if not (folder / inner).is_dir():
                raise Refused(404, "EntryNotFound", "no such folder")
            answer = _entries(folder, folder / inner, recursive)
        else:  # paths-info
            answer = [_entry(folder, folder / file) for file in form.get("paths", []) if (folder / file).exists()]
        return {"Content-Type": "application/json"}, json.dumps(answer).encode()

    def log_message(self, *_):
        pass

    def _folder(self, kind: str, repository: str) -> Path:
        folder = self.served.root / kind / repository
        if repository in self.served.broken:
            raise Refused(500, "", "Internal Error - We're working hard to fix this as soon as possible!")
        if not folder.is_dir():  # 401 to whoever has not logged in: it may be private
            raise Refused(404 if self._logged_in() else 401, "RepoNotFound", "Repository not found")
        return folder

    def _logged_in(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _file(self, folder: Path, name: str, commit: str, gated: bool) -> tuple[dict, bytes]:
        if gated and not self._logged_in():
            raise Refused(401, "GatedRepo", "Access to this repository is restricted. Please log in.")
        file = folder / name
        if not file.is_file():
            refused = Refused(404, "EntryNotFound", "Entry not found")
            refused.headers["X-Repo-Commit"] = commit
            raise refused
        content = file.read_bytes()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_blob(content)}"', "X-Linked-Size": len(content), "Accept-Ranges": "none"}
        return headers, content


def _blob(content: bytes) -> str:
    """Git's name for a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(root: Path, path: Path) -> dict:
    name = path.relative_to(root).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0}
    return {"type": "file", "path": name, "oid": _blob(path.read_bytes()), "size": path.stat().st_size}


def _entries(root: Path, folder: Path, recursive: bool) -> list[dict]:
    return [_entry(root, path) for path in sorted(folder.rglob("*") if recursive else folder.iterdir())]
