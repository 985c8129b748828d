"""A small hub server on this machine, with the endpoints that `datasets` and `huggingface_hub` use.

It can serve data sets and models and accept uploads. Its files are `root/<owner>/<name>/<revision>/<path>`. Slashes in
a revision are folders.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

BRANCHES = ("refs/convert/parquet", "main")
COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    root: Path
    requests: list[tuple[str, str, dict[str, str]]]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        url = urlsplit(self.path)
        path, self.query = unquote(url.path).strip("/"), parse_qs(url.query)
        self.requests.append((self.command, path, dict(self.headers)))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "api/repos/create":
            return self.create()
        if path.startswith("lfs/"):
            (self.root / path).parent.mkdir(exist_ok=True)
            (self.root / path).write_bytes(self.body)
            return self.reply(200, b"")
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.lfs_batch()
        api, _, rest = path.partition("models/" if path.startswith("api/models/") else "datasets/")
        if not rest and "/resolve/" in path:
            api, rest = "", path  # a model's file
        owner, name, kind, *more = [*rest.split("/"), "", ""][: rest.count("/") + 3]
        if not (self.root / owner / name).is_dir():
            return self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})
        repo, where = f"{owner}/{name}", "/".join(more).strip("/")
        revision = next((branch for branch in BRANCHES if where == branch or where.startswith(f"{branch}/")), None)
        inside = where.removeprefix(revision or COMMIT).strip("/")
        folder = self.root / repo / (revision or "main")
        if revision is None and where.startswith(COMMIT):  # a repository has only one branch, so this is its commit
            folder = next(self.root / repo / branch for branch in BRANCHES if (self.root / repo / branch).is_dir())
        if api == "" and kind == "resolve":
            return self.resolve(folder / inside)
        if kind in ("", "revision"):
            return self.json({"id": repo, "sha": COMMIT, "siblings": [], "private": False})
        if kind == "tree":
            return self.tree(folder, inside)
        if kind == "paths-info":
            paths = json.loads(self.body)["paths"]
            return self.json([self.entry(folder, folder / path) for path in paths if (folder / path).exists()])
        if kind == "preupload":
            files = json.loads(self.body)["files"]
            modes = [{"path": f["path"], "uploadMode": self.mode(f["path"]), "shouldIgnore": False} for f in files]
            return self.json({"files": modes})
        if kind == "commit":
            return self.commit(folder, repo if path.startswith("api/models/") else f"datasets/{repo}")
        self.reply(404, b"")

    def create(self) -> None:
        wanted = json.loads(self.body)
        repo = f"{wanted.get('organization') or 'someone'}/{wanted['name']}"
        (self.root / repo / "main").mkdir(parents=True, exist_ok=True)
        self.json({"url": f"{self.endpoint()}/{'datasets/' if wanted.get('type') == 'dataset' else ''}{repo}"})

    def commit(self, folder: Path, repo: str) -> None:
        """Write the files of a commit.

        The body has a line of JSON for the header and for each file. A file is in its line or was uploaded before.
        """
        for line in map(json.loads, self.body.splitlines()):
            about = line["value"]
            if line["key"] == "file":
                content = base64.b64decode(about["content"])
            elif line["key"] == "lfsFile":
                content = (self.root / "lfs" / about["oid"]).read_bytes()
            else:
                continue
            (folder / about["path"]).parent.mkdir(parents=True, exist_ok=True)
            (folder / about["path"]).write_bytes(content)
        self.json({"commitUrl": f"{self.endpoint()}/{repo}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})

    def lfs_batch(self) -> None:
        objects = [
            item | {"actions": {"upload": {"href": f"{self.endpoint()}/lfs/{item['oid']}"}}}
            for item in json.loads(self.body)["objects"]
        ]
        self.json({"transfer": "basic", "objects": objects})

    def mode(self, path: str) -> str:
        return "lfs" if path.endswith((".png", ".parquet", ".safetensors")) else "regular"

    def tree(self, folder: Path, inside: str) -> None:
        if not (folder / inside).is_dir():
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        found = sorted((folder / inside).rglob("*") if recursive else (folder / inside).iterdir())
        self.json([self.entry(folder, path) for path in found])

    def entry(self, folder: Path, path: Path) -> dict:
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": sha1(name.encode()).hexdigest(), "size": 0}
        content = path.read_bytes()
        return {"type": "file", "path": name, "size": len(content), "oid": sha1(content).hexdigest()}

    def resolve(self, path: Path) -> None:
        if not path.is_file():
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = path.read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{sha256(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if wanted is None:
            return self.reply(200, content, headers)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self.reply(206, content[start : end + 1], headers)

    def json(self, value: object) -> None:
        self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def reply(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def log_message(self, *args) -> None:
        pass


@contextmanager
def serving(root: Path) -> Iterator[type[Hub]]:
    """Serve the files below `root` as a hub.

    A new Python process with the variables in `environment` uses this hub, and no real account.
    """
    hub = type("LocalHub", (Hub,), {"root": root, "requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub)
    Thread(target=server.serve_forever, daemon=True).start()
    hub.environment = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(root / ".cache"),
        "HF_TOKEN": "hf_example",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
    }
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
