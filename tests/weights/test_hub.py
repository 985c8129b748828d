"""Tests of downloads from the hub, with huggingface_hub and a small local server that has the endpoints it uses."""

import json
import time
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub.constants
import pytest
import torch
from small import SMALL

from lightseek import LightSeekOCR
from lightseek.weights.formula import write_checkpoint
from lightseek.weights.official import WEIGHTS
from lightseek.weights.tensors import CheckpointError

REPO = "someone/small-ocr"
COMMITS = {"main": "a" * 40, "v1": "b" * 40}


class Hub(BaseHTTPRequestHandler):
    """A server of two revisions of one repository. The class attributes are its state and its log."""

    folders: dict[str, Path] = {}  # commit -> files  # noqa: RUF012
    requests: list[tuple[str, str, dict]] = []  # noqa: RUF012
    cut_after: int | None = None  # close the connection once, after this many bytes of the weights

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        Hub.requests.append((self.command, self.path, dict(self.headers)))
        path = self.path.split("?")[0].removeprefix("/api/models").strip("/")
        if not path.startswith(REPO):
            return self.reply(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
        kind, _, rest = path.removeprefix(REPO).strip("/").partition("/")
        revision, _, name = rest.partition("/")
        commit = COMMITS.get(revision or "main", revision)
        if commit not in self.folders:
            return self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
        files = {file.name: file.read_bytes() for file in self.folders[commit].iterdir()}
        if kind == "tree":
            listing = [
                {"type": "file", "path": n, "size": len(c), "oid": sha256(c).hexdigest()} for n, c in files.items()
            ]
            return self.reply(200, json.dumps(listing).encode(), {}, body)
        if kind != "resolve":
            siblings = [{"rfilename": name} for name in files]
            return self.reply(200, json.dumps({"id": REPO, "sha": commit, "siblings": siblings}).encode(), {}, body)
        if name not in files:
            return self.reply(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        content = files[name]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{sha256(content).hexdigest()}"'}
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.reply(206 if start else 200, content[start:], headers, body, weights=name == WEIGHTS)

    def reply(self, status: int, content: bytes, headers: dict, body: bool, weights: bool = False) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if body and weights and Hub.cut_after is not None:
            content, Hub.cut_after = content[: Hub.cut_after], None
            self.close_connection = True
        if body:
            self.wfile.write(content)

    def log_message(self, *args) -> None:
        pass


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folders = {}
    for revision, dtype in (("main", torch.float32), ("v1", torch.bfloat16)):
        folders[COMMITS[revision]] = tmp_path_factory.mktemp(revision)
        write_checkpoint(folders[COMMITS[revision]], SMALL, dtype)
        (folders[COMMITS[revision]] / "pytorch_model.bin").write_bytes(b"a pickle")
    return folders


@pytest.fixture
def hub(repository, monkeypatch, tmp_path):
    """A hub at a local address, without the credentials of the person who runs the tests."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    Hub.folders, Hub.requests, Hub.cut_after = repository, [], None
    at(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "")
    yield Hub
    server.shutdown()
    server.server_close()


def at(monkeypatch, endpoint: str) -> None:
    """Change the hub's address, as HF_ENDPOINT does if it is set before Python starts."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_a_hub_id_loads_like_the_folder_and_never_fetches_a_pickle(hub, repository, tmp_path):
    model = LightSeekOCR.from_pretrained(REPO, cache_dir=str(tmp_path))
    here = LightSeekOCR.from_pretrained(repository[COMMITS["main"]])
    for ours, theirs in zip(model.parameters(), here.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    fetched = [path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]
    assert any(path.endswith(WEIGHTS) for path in fetched)
    assert not any(path.endswith(".bin") for path in fetched)


def test_a_revision_is_pinned(hub, tmp_path):
    assert LightSeekOCR.from_pretrained(REPO, cache_dir=str(tmp_path), revision="v1").dtype == torch.bfloat16
    assert all(COMMITS["v1"] in path or "/v1" in path for _, path, _ in hub.requests)
    assert LightSeekOCR.from_pretrained(REPO, cache_dir=str(tmp_path)).dtype == torch.float32


def test_the_token_is_sent(hub, tmp_path):
    LightSeekOCR.from_pretrained(REPO, cache_dir=str(tmp_path), token="hf_example")
    sent = [{key.lower(): value for key, value in headers.items()} for _, _, headers in hub.requests]
    assert sent and all(headers.get("authorization") == "Bearer hf_example" for headers in sent)


def test_what_was_downloaded_loads_offline(hub, tmp_path, monkeypatch):
    LightSeekOCR.from_pretrained(REPO, cache_dir=str(tmp_path))
    asked = len(hub.requests)
    LightSeekOCR.from_pretrained(REPO, cache_dir=str(tmp_path), local_files_only=True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    LightSeekOCR.from_pretrained(REPO, cache_dir=str(tmp_path))
    assert len(hub.requests) == asked


def test_a_broken_download_resumes_where_it_stopped(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cut_after = 2000
    LightSeekOCR.from_pretrained(REPO, cache_dir=str(tmp_path))
    ranges = [headers.get("Range") or headers.get("range") for method, path, headers in hub.requests
              if method == "GET" and path.endswith(WEIGHTS)]  # fmt: skip
    assert ranges == [None, "bytes=2000-"]


def refused(**hub) -> str:
    with pytest.raises(CheckpointError) as error:
        LightSeekOCR.from_pretrained(REPO, **hub)
    return str(error.value)


@pytest.mark.parametrize("offline", [False, True], ids=["unreachable", "offline"])
def test_without_the_hub_the_error_says_what_to_download_and_where_to_put_it(monkeypatch, tmp_path, offline):
    at(monkeypatch, "http://127.0.0.1:9")  # no server listens on this port
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    start = time.monotonic()
    message = refused(cache_dir=str(tmp_path))
    assert time.monotonic() - start < 10  # no long retries
    for words in (REPO, "config.json", "tokenizer.json", "*.safetensors", "into a folder and pass its path", "HF_HUB_"):
        assert words in message


def test_an_unknown_revision_is_named(hub, tmp_path):
    message = refused(cache_dir=str(tmp_path), revision="v9")
    assert "v9" in message and REPO in message


def test_an_unknown_repository_is_named(hub, tmp_path):
    with pytest.raises(CheckpointError, match="someone/else: there is no such folder here"):
        LightSeekOCR.from_pretrained("someone/else", cache_dir=str(tmp_path))
