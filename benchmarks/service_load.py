"""Puts the service under load, with broken, oversized and abandoned requests among the good ones.

    python benchmarks/service_load.py                      # 10,000 requests, 16 at once, against nano
    python benchmarks/service_load.py --count 200 --kill   # a short try, and the server is killed and started again

It starts `python -m lightseek serve`, sends requests and compares each text with that of `read` in this process. A good
request that gets 429 or 503, or loses its connection, is sent again. The exit code is 1 if a text differs, if an answer
is a 500 or something else that the request does not explain, or if memory at the end is more than 5 % above that after
1,000 requests. It needs httpx.
"""

import argparse
import asyncio
import collections
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402 - after the path

from lightseek.page.render import fit_pages, page_style, render_text  # noqa: E402
from lightseek.serve.engine import TIDY_SECONDS  # noqa: E402
from lightseek.text.generate import read  # noqa: E402
from lightseek.text.kinds import PROMPTS  # noqa: E402
from lightseek.weights.loading import load_model  # noqa: E402

MODE = "tiny"
SMALL, LONG = (1, 24), (6, 160)  # lines of a document, and tokens of its text at most
BODY_MB = 1
KINDS = {"good": 0.80, "broken": 0.10, "hangs up": 0.05, "oversized": 0.05}
EXPLAINED = {"broken": range(400, 500), "oversized": (413,)}
AGAIN = (429, 503)


class Server:
    """The service in a process of its own."""

    def __init__(self, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log, self.url = log, f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "lightseek", "serve", "--port", str(self.port), "--body-mb", str(BODY_MB)]
        with self.log.open("ab") as log:
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            self.process = subprocess.Popen([*command, "--no-inspect"], stdout=log, stderr=log, env=environment)
        began = time.monotonic()
        while time.monotonic() - began < 120 and self.process.poll() is None:
            try:
                httpx.get(f"{self.url}/health")
                return
            except httpx.TransportError:
                time.sleep(0.2)
        raise SystemExit(f"the server does not start:\n{self.log.read_text()[-2000:]}")

    def memory(self) -> int:
        return httpx.get(f"{self.url}/health", timeout=60).json()["memory_bytes"]

    def end(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(60)


def documents(count: int, lines: int, most: int) -> list[tuple[bytes, str]]:
    """Return pictures of so many lines, and what `read` says about each in `most` tokens."""
    model, pictures = load_model(), []
    for index in range(count):
        text = "\n".join(f"Box {index + line}: {(index + 3 * line) * 7 % 100} maps." for line in range(lines))
        pictures.append(render_text(text, fit_pages(text, page_style(MODE), *model.config.letters)).pages[0].image)
    found = read(model, pictures, PROMPTS["ocr"], MODE, max_new_tokens=most)
    files = []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, "PNG")
        files.append(file.getvalue())
    return [(file, one.text or "") for file, one in zip(files, found, strict=True)]


class Load:
    """Sends requests and counts what came of them."""

    def __init__(self, server: Server, known: list[tuple[bytes, str]], most: int, seed: int) -> None:
        self.server, self.known, self.random = server, known, random.Random(seed)
        self.fields = {"mode": MODE, "max_length": str(most)}
        self.counts: collections.Counter[str] = collections.Counter()
        self.seconds: list[float] = []
        self.wrong: list[str] = []

    async def run(self, count: int, at_once: int, kinds: dict[str, float]) -> float:
        """Send so many requests and return the seconds that they took together."""
        names = self.random.choices(list(kinds), list(kinds.values()), k=count)
        coming = iter([(name, self.random.random()) for name in names])
        began = time.monotonic()

        async def client() -> None:
            async with httpx.AsyncClient(base_url=self.server.url, timeout=120) as http:
                for name, draw in coming:
                    await getattr(self, name.replace(" ", "_"))(http, draw)
                    self.counts[name] += 1

        await asyncio.gather(*(client() for _ in range(at_once)))
        return time.monotonic() - began

    async def settled(self) -> int:
        """Return the server's memory after it gave freed blocks back: it does so after a batch, every 10 seconds."""
        await asyncio.sleep(TIDY_SECONDS + 1)
        await self.run(1, 1, {"good": 1})
        await asyncio.sleep(1)
        return self.server.memory()

    async def good(self, http: httpx.AsyncClient, draw: float) -> None:
        data, text = self.known[int(draw * len(self.known))]
        until = time.monotonic() + 120
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                answer = await http.post("/ocr", files={"file": ("a.png", data)}, data=self.fields)
            except httpx.TransportError:
                self.counts["lost connections"] += 1
                await asyncio.sleep(0.5)
                continue
            if answer.status_code in AGAIN and "retry-after" in answer.headers:
                self.counts[f"told {answer.status_code}"] += 1
                await asyncio.sleep(0.2)
                continue
            self.seconds.append(time.monotonic() - began)
            if answer.status_code != 200 or answer.json()["text"] != text:
                self.wrong.append(f"good: {answer.status_code} {answer.text[:200]}")
            return
        self.wrong.append("good: no answer in 120 s")

    async def broken(self, http: httpx.AsyncClient, draw: float) -> None:
        data = self.known[0][0]
        kind = {"content-type": "application/json"}
        form = {"content-type": "multipart/form-data; boundary=x"}
        cut = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + data[:200]
        requests = [
            {"url": "/ocr", "files": {"file": ("a.png", data[: len(data) // 2])}, "data": {"mode": MODE}},
            {"url": "/ocr", "files": {"file": ("a.png", b"\0\1\2")}, "data": {"mode": MODE}},
            {"url": "/ocr", "files": {"file": ("a.pdf", b"%PDF-1.7\n" + data[:500])}, "data": {"mode": MODE}},
            {"url": "/ocr", "content": cut, "headers": form},
            {"url": "/ocr", "files": {"file": ("a.png", data)}, "data": {"mode": "none"}},
            {"url": "/summarize/text", "content": b'{"text": ', "headers": kind},
            {"url": "/v1/chat/completions", "content": b"[" * 50_000, "headers": kind},
            {
                "url": "/v1/chat/completions",
                "json": {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            },
        ]
        await self.expect("broken", http, requests[int(draw * len(requests))])

    async def oversized(self, http: httpx.AsyncClient, draw: float) -> None:
        size = BODY_MB * 2**20 + int(draw * 2**20)
        await self.expect("oversized", http, {"url": "/ocr", "files": {"file": ("a.png", b"x" * size)}})

    async def expect(self, kind: str, http: httpx.AsyncClient, request: dict) -> None:
        try:
            answer = await http.post(**request)
        except httpx.TransportError:  # the server may close before it has read all of a body that it refuses
            self.counts["lost connections"] += 1
            return
        if answer.status_code not in EXPLAINED[kind] or "message" not in answer.json().get("error", {}):
            self.wrong.append(f"{kind}: {answer.status_code} {answer.text[:200]}")

    async def hangs_up(self, http: httpx.AsyncClient, draw: float) -> None:
        """Send a request, or a part of it, and close the connection without waiting for the answer."""
        data = self.known[0][0]
        request = http.build_request("POST", "/ocr", files={"file": ("a.png", data)}, data=self.fields)
        body = await request.aread()
        head = "POST /ocr HTTP/1.1\r\n" + "".join(f"{key}: {value}\r\n" for key, value in request.headers.items())
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
            writer.write(head.encode() + b"\r\n" + body[: len(body) if draw < 0.7 else len(body) // 2])
            await writer.drain()
            await asyncio.sleep(draw * 0.3)
            writer.transport.abort()
        except OSError:
            self.counts["lost connections"] += 1


def percentile(seconds: list[float], share: float) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="requests (10000)")
    parser.add_argument("--at-once", type=int, default=16, help="clients (16)")
    parser.add_argument("--speed", type=int, default=64, help="good requests for batched against one by one (64)")
    parser.add_argument("--kill", action="store_true", help="kill the server (-9) under load, and start it again")
    parser.add_argument("--seed", type=int, default=0, help="the seed of kinds and documents (0)")
    arguments = parser.parse_args()
    small, long = documents(24, *SMALL), documents(8, *LONG)
    log = Path(tempfile.mkstemp(prefix="service-load-")[1])
    server = Server(log)
    load = Load(server, small, SMALL[1], arguments.seed)
    found: dict = {}
    try:
        speed = Load(server, long, LONG[1], arguments.seed)
        asyncio.run(speed.run(2, 1, {"good": 1}))  # the first requests of a process are slow
        alone = asyncio.run(speed.run(arguments.speed, 1, {"good": 1}))
        together = asyncio.run(speed.run(arguments.speed, arguments.at_once, {"good": 1}))
        found["one by one, requests/s"] = round(arguments.speed / alone, 2)
        found["together, requests/s"] = round(arguments.speed / together, 2)
        found["together / one by one"] = round(alone / together, 2)
        for clients in (1, arguments.at_once // 2):
            found |= asyncio.run(mixed(server, small, long, arguments, clients))
        before = min(1000, arguments.count // 2)
        seconds = asyncio.run(load.run(before, arguments.at_once, KINDS))
        if arguments.kill:
            asyncio.run(killed(load, arguments))
        first = asyncio.run(load.settled())  # with --kill, that of the new process
        course, left = [first], arguments.count - before
        for part in range(10):  # for the course of the memory
            share = left * (part + 1) // 10 - left * part // 10
            seconds += asyncio.run(load.run(share, arguments.at_once, KINDS))
            course.append(server.memory())
        last = course[-1] = asyncio.run(load.settled())
        found |= {"seconds": round(seconds, 1), "requests/s": round(arguments.count / seconds, 2)}
        found |= {"p50, s": round(percentile(load.seconds, 0.5), 3), "p95, s": round(percentile(load.seconds, 0.95), 3)}
        found |= {f"memory after {before}, MB": first >> 20, "memory at the end, MB": last >> 20}
        found["memory from there to the end, MB"] = [bytes_ >> 20 for bytes_ in course]
    finally:
        server.end()
    if (growth := last / first - 1) > 0.05 and not arguments.kill:
        load.wrong.append(f"memory grew by {growth:.1%}")
    wrong = [*speed.wrong, *load.wrong]
    print(json.dumps(found | {"counts": dict(load.counts), "wrong": len(wrong), "examples": wrong[:5]}, indent=2))
    if "Traceback" in log.read_text():
        print(f"there are errors in {log}")
        return 1
    log.unlink()
    return int(bool(wrong))


async def mixed(server: Server, small: list, long: list, options: argparse.Namespace, clients: int) -> dict[str, float]:
    """Send short and long documents at once, from so many clients each. Return how long each kind takes."""
    short, others = Load(server, small, SMALL[1], options.seed), Load(server, long, LONG[1], options.seed)
    began, kind = time.monotonic(), {"good": 1}
    await asyncio.gather(short.run(4 * options.speed, clients, kind), others.run(options.speed, clients, kind))
    name = f"short and long from {clients} each"
    found = {f"{name}, requests/s": round(5 * options.speed / (time.monotonic() - began), 2)}
    for length, load in (("short", short), ("long", others)):
        for share in (50, 95):
            found[f"{name}, {length}, p{share}, s"] = round(percentile(load.seconds, share / 100), 3)
        if load.wrong:
            raise SystemExit(f"wrong texts: {load.wrong[:5]}")
    return found


async def killed(load: Load, arguments: argparse.Namespace) -> None:
    """Kill the server in the middle of good requests and start it again. All of them must be answered in the end."""
    work = asyncio.create_task(load.run(4 * arguments.at_once, arguments.at_once, {"good": 1}))
    await asyncio.sleep(1)
    load.server.end(signal.SIGKILL)
    await asyncio.to_thread(load.server.start)
    await work
    load.counts["kills"] += 1


if __name__ == "__main__":
    sys.exit(main())
