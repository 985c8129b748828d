"""The service over HTTP: routes, limits, errors, batches, adapters, streaming, stopping, and OpenAI's client."""

import io
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import jsonschema
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from lightseek.page.grounding import Region
from lightseek.page.render import fit_pages, page_style, render_text
from lightseek.page.views import page_views
from lightseek.serve import documents, openai_api
from lightseek.serve.app import create_app
from lightseek.serve.engine import Engine
from lightseek.serve.errors import Refused
from lightseek.serve.jobs import Answer, Job, Wish
from lightseek.serve.limits import Limits
from lightseek.serve.registry import Models
from lightseek.text.generate import read
from lightseek.text.kinds import PROMPTS
from lightseek.text.post import Written
from lightseek.text.sampling import Sampler, Writer
from lightseek.weights.lora import add_lora
from lightseek.weights.lora_files import save_adapter
from tests.serving import FORM, SHORT, chat, extracted, loaded, png, running, service_of, talk, uri
from tests.tiny_models import qwen3_folder, small_model


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    import torch

    folder, model = tmp_path_factory.mktemp("adapter"), small_model()
    add_lora(model, "attention", 4, 8.0, 0.0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora" in name.lower() and weight.requires_grad:
                weight.normal_(std=0.5, generator=torch.Generator().manual_seed(len(name)))
    save_adapter(model, folder)
    return str(folder)


@pytest.fixture(scope="module")
def client(adapter):
    with TestClient(create_app(service_of(adapters={"news": adapter}))) as client:
        yield client


@pytest.fixture(scope="module")
def alone():
    """What the model says about a picture when it is asked alone."""
    model = small_model()

    def say(data: bytes, mode="tiny", most=6) -> str:
        picture = documents.open_document(data, Limits(), mode, model.config).pages[0]
        return read(model, [picture], PROMPTS["ocr"], mode, max_new_tokens=most)[0].text

    return say


def test_health_models_limits_and_metrics(client):
    assert client.get("/health").json()["status"] == "ready"
    rows = client.get("/models").json()
    assert (rows[0]["id"], rows[0]["kind"], rows[0]["loaded"]) == ("nano", "base", True)
    assert rows[1]["base"] == "nano"
    assert client.get("/limits").json()["rows"] == 16
    text = client.get("/metrics").text
    assert 'lightseek_requests_total{route="/health",status="200"}' in text
    assert 'lightseek_memory_bytes{what="weights"}' in text


def test_a_picture_is_read_as_the_library_reads_it(client, alone):
    answer = client.post("/ocr", files={"file": ("a.png", png())}, data=SHORT)
    assert answer.status_code == 200
    found = answer.json()
    assert found["text"] == alone(png())
    assert found["mode"] == "tiny"
    assert found["usage"]["prompt_tokens"] > 73  # the positions of a tiny page, and the words of the prompt
    assert found["usage"]["completion_tokens"] == found["pages"][0]["tokens"] <= 6


def test_confidence_of_each_token(client):
    answer = client.post("/ocr", files={"file": ("a.png", png())}, data=SHORT | {"confidence": "true"})
    page = answer.json()["pages"][0]
    assert len(page["confidence"]) in (page["tokens"], page["tokens"] + 1)  # and the stop token
    assert all(0 <= row["probability"] <= 1 and len(row["candidates"]) == 3 for row in page["confidence"])


def test_a_text_is_drawn_and_summarized(client):
    answer = client.post("/summarize/text", json={"text": "Three red boats.", "mode": "tiny", "max_length": 5})
    assert answer.status_code == 200
    assert answer.json()["pages"] == 1
    file = {"file": ("notes.md", b"# Boats\n\nThree red *boats*.")}
    assert client.post("/summarize/file", files=file, data=SHORT).status_code == 200
    wrong = client.post("/summarize/image", files=file, data=SHORT)
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (400, "invalid_request")
    assert "this is a text" in wrong.json()["error"]["message"]


def test_the_chosen_pages_of_a_pdf(client):
    pages = [Image.new("RGB", (200, 200), colour) for colour in ("white", "grey", "black")]
    file = io.BytesIO()
    pages[0].save(file, "PDF", save_all=True, append_images=pages[1:])
    data = {**SHORT, "first_page": "2", "last_page": "3"}
    found = client.post("/ocr", files={"file": ("x", file.getvalue())}, data=data).json()
    assert [page["page"] for page in found["pages"]] == [2, 3]
    none = client.post("/ocr", files={"file": ("x", file.getvalue())}, data={**SHORT, "first_page": "9"})
    assert none.status_code == 400
    assert "3 page(s)" in none.json()["error"]["message"]


@pytest.mark.parametrize(
    ("files", "data", "status", "words"),
    [
        ({"file": ("a.png", b"\x00\x01\x02")}, {}, 400, "no picture, no PDF and no text"),
        ({"file": ("a.png", b"")}, {}, 400, "no picture"),
        ({"file": ("a.pdf", b"%PDF-1.7 broken")}, {}, 400, "not a readable PDF"),
        ({"file": ("a.png", png())}, {"mode": "tyni"}, 400, "unknown mode"),
        ({"file": ("a.png", png())}, {"model": "gpt"}, 404, "choose one of nano, news"),
        ({"file": ("a.png", png())}, {"max_length": "0"}, 422, "max_length"),
        ({"file": ("a.png", png())}, {"prompt": "<image> <image>"}, 400, "only once"),
        ({}, {}, 422, "file"),
    ],
)
def test_every_error_has_one_shape_and_says_what_was_wrong(client, files, data, status, words):
    answer = client.post("/ocr", files=files, data={**SHORT, **data})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"type", "message", "param", "code"}
    assert words in error["message"]
    assert "/tmp" not in error["message"]
    assert answer.headers["x-request-id"]


def test_a_longer_text_than_the_limit_is_cut_and_not_refused():
    """The official recipes ask for 8192 tokens, whatever there is room for."""
    service = service_of(Limits(output_tokens=100))
    assert [service.wish(None, None, most).max_new_tokens for most in (8192, 100, 6)] == [100, 100, 6]


def test_names_and_addresses_of_a_request_are_never_opened(client, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    read_back = client.post("/ocr", files={"file": (str(secret), b"public words")}, data=SHORT)
    assert read_back.status_code == 200
    for address in (f"file://{secret}", "http://127.0.0.1:1/a.png", str(secret), "data:text/plain,hello"):
        content = [{"type": "image_url", "image_url": {"url": address}}]
        answer = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]})
        assert answer.status_code == 400
        assert "data URI" in answer.json()["error"]["message"]


def test_limits_of_body_pictures_and_pixels():
    limits = Limits(body_mb=1, pixels=50_000, pictures=1, prompt_characters=50)
    with TestClient(create_app(service_of(limits))) as client:
        big = client.post("/ocr", files={"file": ("a.png", b"x" * 2**20)}, data=SHORT)
        assert (big.status_code, big.json()["error"]["type"]) == (413, "too_large")

        def chunks():
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            yield from (b"x" * 2**16 for _ in range(40))

        unsized = client.post("/ocr", content=chunks(), headers={"content-type": "multipart/form-data; boundary=x"})
        assert unsized.status_code == 413
        wide = client.post("/ocr", files={"file": ("a.png", png(size=(300, 200)))}, data=SHORT)
        assert wide.status_code == 413
        assert "300 x 200 pixels" in wide.json()["error"]["message"]
        part = {"type": "image_url", "image_url": {"url": uri(png(size=(60, 60)))}}
        two = {"messages": [{"role": "user", "content": [part, part]}], "mode": "tiny", "max_tokens": 2}
        assert client.post("/v1/chat/completions", json=two).status_code == 413
        long = client.post("/summarize/text", json={"text": "words " * 20, "mode": "tiny"})
        assert long.status_code == 413


def test_an_api_key_guards_everything_but_health():
    with TestClient(create_app(service_of(), api_key="s3cret")) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/models").status_code == 401
        assert (
            client.get("/models", headers={"Authorization": "Bearer wrong"}).json()["error"]["type"] == "unauthorized"
        )
        assert client.get("/models", headers={"Authorization": "Bearer s3cret"}).status_code == 200


def test_requests_that_come_together_run_together_and_say_what_they_say_alone(alone):
    service = service_of(Limits(wait_ms=300, rows=8))
    batches = []
    service.metrics.batch = batches.append
    pictures = [png(colour) for colour in ("white", "black", "red", "navy", "green")]
    with TestClient(create_app(service)) as client:
        found: dict[int, str] = {}

        def ask(index: int) -> None:
            answer = client.post("/ocr", files={"file": ("a", pictures[index])}, data=SHORT)
            found[index] = answer.json()["text"]

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert max(batches) >= 2
    assert sum(batches) == 5
    assert [found[i] for i in range(5)] == [alone(picture) for picture in pictures]


def test_two_adapters_at_once_both_come_out_right(client, adapter):
    from lightseek.weights.lora_files import load_adapter

    tuned = small_model()
    load_adapter(tuned, adapter)
    picture = documents.open_document(png("red"), Limits(), "tiny", tuned.config).pages[0]
    expected = {
        "news": read(tuned, [picture], PROMPTS["ocr"], "tiny", max_new_tokens=6)[0].text,
        "nano": read(small_model(), [picture], PROMPTS["ocr"], "tiny", max_new_tokens=6)[0].text,
    }
    assert expected["news"] != expected["nano"]
    found = []

    def ask(name: str) -> None:
        answer = client.post("/ocr", files={"file": ("a", png("red"))}, data={**SHORT, "model": name})
        found.append((name, answer.json()["text"]))

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("news", "nano", "news", "nano")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(2 * list(expected.items()))
    both = client.post("/compare", files={"file": ("a", png("red"))}, data={**SHORT, "first": "nano", "second": "news"})
    told = both.json()
    assert (told["first"]["text"], told["second"]["text"]) == (expected["nano"], expected["news"])
    assert (
        " ".join(p.get("same", p.get("first")) for p in told["differences"] if p.get("same", p.get("first")))
        == (expected["nano"])
    )


def test_the_least_recently_used_model_goes():
    models = Models(["a", "b"], memory_gb=1e-9, load=loaded)
    first = models.use("a", None)
    assert models.use("a", None) is first
    models.use("b", None)
    assert [(row["id"], row["loaded"]) for row in models.listing()] == [("a", False), ("b", True)]
    assert models.use("a", None) is not first
    with pytest.raises(ValueError, match="different names"):
        Models(["x/a", "y/a"])


def test_openai_client_reads_streams_and_counts(adapter):
    """The real client of OpenAI, over a real socket."""
    openai = pytest.importorskip("openai")
    with running(create_app(service_of(adapters={"news": adapter}))) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        assert talk(client) == ["nano", "news"]
        with pytest.raises(openai.NotFoundError, match="no model"):
            client.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "Hi"}])
        with pytest.raises(openai.BadRequestError, match="stands for a page"):
            client.chat.completions.create(model="nano", messages=[{"role": "user", "content": "<image>"}])


def views():
    style = page_style("tiny")
    return page_views(render_text("ab", fit_pages("ab", style, 44, 64)).pages[0].image, "tiny")


def job(most=4, seconds=60.0, **more) -> Job:
    wish = Wish("nano", "nano", None, "tiny", most, **more)
    return Job(wish, PROMPTS["ocr"], [views()], time.monotonic() + seconds)


def run(engine: Engine, *jobs: Job, timeout=60) -> list:
    outcomes: dict[int, object] = {}
    done = threading.Event()

    def keep(index):
        def end(outcome):
            outcomes[index] = outcome
            if len(outcomes) == len(jobs):
                done.set()

        return end

    for index, one in enumerate(jobs):
        one.on_end = keep(index)
        engine.submit(one)
    assert done.wait(timeout)
    return [outcomes[i] for i in range(len(jobs))]


def test_a_client_that_goes_away_frees_its_row_and_the_others_go_on():
    engine = Engine(Models(load=loaded), Limits(wait_ms=100))
    engine.start()
    leaving, staying = job(most=400, guard="none"), job(most=12, guard="none")
    leaving.on_text = lambda piece: leaving.stopped.set()
    gone, stayed = run(engine, leaving, staying)
    assert isinstance(gone, Answer)
    assert gone.finish_reason == "stopped"
    assert gone.tokens < 12
    (alone,) = run(engine, job(most=12, guard="none"))
    assert stayed.text == alone.text
    engine.stop(20)


def follow(engine: Engine, first: Job, *later: Job) -> list[Job]:
    """Submit `later` when the text of `first` has begun. Return all jobs in the order in which they ended."""
    ended, done = [], threading.Event()
    jobs = [first, *later]
    for one in jobs:
        one.on_end = lambda outcome, one=one: (
            ended.append((one, outcome)),
            done.set() if len(ended) == len(jobs) else None,
        )
    begun = threading.Event()
    first.on_text = lambda piece: begun.set()
    engine.submit(first)
    assert begun.wait(30)
    for one in later:
        engine.submit(one)
    assert done.wait(30)
    return ended


def test_a_short_text_need_not_wait_for_the_end_of_a_long_one():
    """It joins the running batch, unless all rows are taken. Each text is the one that the model writes alone."""
    for rows in (1, 3):
        engine = Engine(Models(load=loaded), Limits(wait_ms=1, rows=rows))
        engine.start()
        long, short, other = (job(most, guard="none") for most in (400, 4, 6))
        ended = follow(engine, long, short, other)
        assert ended[-1 if rows == 3 else 0][0] is long
        answers = {id(one): answer for one, answer in ended}
        for one in (long, short, other):
            (alone,) = run(engine, job(one.wish.max_new_tokens, guard="none"))
            assert answers[id(one)].text == alone.text
            assert answers[id(one)].tokens == one.wish.max_new_tokens
        engine.stop(20)


def test_a_job_that_cannot_be_read_leaves_the_running_texts_alone():
    engine = Engine(Models(load=loaded), Limits(wait_ms=1))
    engine.start()
    long, broken, fine = job(most=400, guard="none"), job(guard="none"), job(guard="none")
    broken.prompt = "no page here"  # one page, and no <image> in the prompt
    answers = {id(one): outcome for one, outcome in follow(engine, long, broken, fine)}
    assert isinstance(answers[id(broken)], ValueError)
    assert (answers[id(fine)].tokens, answers[id(long)].tokens) == (4, 400)
    engine.stop(20)


def test_what_joins_came_before_anything_that_must_wait_for_the_end_of_the_batch():
    engine = Engine(Models(load=loaded), Limits(rows=4))
    writer, cache = Writer(Sampler(), None, frozenset()), SimpleNamespace(joins=True)
    writer.state, writer.growing = SimpleNamespace(cache=cache), [SimpleNamespace(goes_on=True)] * 2
    same, other = [job() for _ in range(4)], job(guard="none")
    for one in (*same[:3], other, same[3]):
        engine.submit(one)
    kind = same[0].kind
    assert engine._joining(writer, kind) == same[:2]  # there are two free rows
    writer.growing.pop()
    cache.joins = False  # as with a decoder of transformers
    assert engine._joining(writer, kind) == []
    cache.joins = True
    assert engine._joining(writer, kind) == [same[2]]  # the next one has another guard
    assert engine._joining(writer, kind) == []
    assert engine._next_batch() == [other]
    engine.waiting.put(print)  # a call, such as a look inside the model
    assert engine._joining(writer, kind) == []
    assert engine.left_over == [same[3]] and engine.calls == [print]


def test_a_batch_that_goes_on_and_on_keeps_no_jobs_that_ended():
    engine = Engine(Models(load=loaded), Limits(wait_ms=1))
    outcomes, waiting = [], [job(guard="none") for _ in range(12)]
    for one in waiting:
        one.on_end = outcomes.append
    long = job(most=400, guard="none")
    long.on_text = lambda piece: engine.submit(waiting.pop()) if waiting else None
    batch = [long]
    engine._write(batch, alone=False)
    assert len(outcomes) == 12 and all(outcome.tokens == 4 for outcome in outcomes)
    assert long in batch and len(batch) < 9


def test_a_deadline_and_a_full_queue_and_a_stop():
    engine = Engine(Models(load=loaded), Limits(wait_ms=1, queue=2, rows=1))
    (late,) = run_late(engine)
    assert (late.status, late.kind) == (504, "deadline")
    waiting = [job(), job(), job()]
    outcomes = []
    for one in waiting:
        one.on_end = outcomes.append
    engine2 = Engine(Models(load=loaded), Limits(queue=2))
    engine2.submit(waiting[0])
    engine2.submit(waiting[1])
    with pytest.raises(Refused) as refused:
        engine2.submit(waiting[2])
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    engine2.closing = True
    engine2.start()
    engine2.stop(20)
    assert [outcome.status for outcome in outcomes] == [503, 503]
    with pytest.raises(Refused) as stopped:
        engine2.submit(job())
    assert stopped.value.status == 503
    engine.stop(20)


def run_late(engine: Engine) -> list:
    engine.start()
    return run(engine, job(seconds=-1))


def test_a_sampled_text_follows_its_seed():
    engine = Engine(Models(load=loaded), Limits(wait_ms=1))
    engine.start()
    one, two, other = run(engine, *(job(temperature=1.5, seed=seed, guard="none") for seed in (7, 7, 8)))
    assert one.text == two.text != other.text
    engine.stop(20)


def test_a_job_that_fails_does_not_take_the_others_with_it():
    engine = Engine(Models(load=loaded), Limits(wait_ms=200))
    engine.start()
    broken = job()
    broken.prompt = "no page here"  # one page, and no <image> in the prompt
    failed, fine = run(engine, broken, job())
    assert isinstance(failed, ValueError)
    assert isinstance(fine, Answer)
    engine.stop(20)


def test_json_that_satisfies_a_schema_also_beside_other_requests(client, alone):
    found = {}

    def ask(name, run):
        found[name] = run()

    work = {
        "json": lambda: extracted(client, FORM),
        "other": lambda: extracted(client, {"type": "boolean"}),
        "text": lambda: client.post("/ocr", files={"file": ("a", png())}, data=SHORT),
    }
    threads = [threading.Thread(target=ask, args=item) for item in work.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = found["json"].json()
    jsonschema.validate(told["value"], FORM)
    assert json.loads(told["text"]) == told["value"]
    assert told["usage"]["completion_tokens"] > 20
    assert found["other"].json()["value"] in (True, False)
    assert found["text"].json()["text"] == alone(png())


def test_what_extract_refuses(client):
    cut = extracted(client, FORM, max_length="9")
    assert (cut.status_code, cut.json()["error"]["type"]) == (422, "cut")
    for schema, words in (
        ("{", "not valid JSON"),
        ("[]", "is an object"),
        ({"not": {}}, "Unimplemented"),
        ("[" * 90_000, "brackets"),
        ({"$ref": "#"}, "can't be followed"),
    ):
        answer = extracted(client, schema)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request")
        assert words in answer.json()["error"]["message"]
    assert extracted(client, FORM, prompt="Which <image>?").status_code == 400


def test_a_second_model_writes_the_json(tmp_path):
    """The decoder reads two pages of a PDF, and the second model answers from their text."""
    from lightseek.text.post import load_writer

    pages, file = [Image.new("RGB", (300, 200), colour) for colour in ("white", "grey")], io.BytesIO()
    pages[0].save(file, "PDF", save_all=True, append_images=pages[1:])
    service = service_of()
    with TestClient(create_app(service)) as client:
        assert extracted(client, FORM, by="post").json()["error"]["param"] == "by"  # it was started without one
        service.writer = load_writer(f"hf:{qwen3_folder(tmp_path)}")
        form = {"mode": "tiny", "schema": json.dumps(FORM), "by": "post", "max_length": "60"}
        told = client.post("/extract", files={"file": ("a.pdf", file.getvalue())}, data=form).json()
        jsonschema.validate(told["value"], FORM)
        assert told["pages"] == 2 and told["seconds"]["post"] > 0
        assert told["value"] != extracted(client, FORM).json()["value"]  # that of the decoder
        assert extracted(client, FORM, by="post", max_length="5").json()["error"]["type"] == "cut"
        assert extracted(client, {"not": {}}, by="post").status_code == 400
        assert extracted(client, FORM, by="nobody").status_code == 422


def test_the_second_model_stops_at_the_deadline_and_takes_no_more_than_the_queue(monkeypatch):
    begun, ended, release = threading.Event(), threading.Event(), threading.Event()

    def slow(writer, prompt, text, schema, most, given_up):
        begun.set()
        while not given_up() and not release.wait(0.01):
            pass
        ended.set()
        return Written("{}", True, 1)

    monkeypatch.setattr("lightseek.text.post.write", slow)
    service = service_of(Limits(deadline_s=3.0, queue=1))
    service.writer = "slow"
    form = {"type": "object"}
    with TestClient(create_app(service)) as client, ThreadPoolExecutor() as pool:
        late = pool.submit(extracted, client, form, by="post", max_length="2")
        assert begun.wait(60)
        busy = extracted(client, form, by="post", max_length="2")
        assert (busy.status_code, "retry-after" in busy.headers) == (429, True)
        assert late.result(60).json()["error"]["type"] == "deadline"
        assert ended.wait(60) and not release.is_set()  # it does not go on for nobody
        release.set()
        assert extracted(client, form, by="post", max_length="2").json()["value"] == {}


def test_the_page_is_one_file_that_talks_to_this_server_only(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "connect-src 'self'" in page.headers["content-security-policy"]
    assert not re.findall(r"""(?:src|href)=["'](?!data:|/)""", page.text)
    assert "http" not in page.text.replace("http://www.w3.org/2000/svg", "")


def test_pages_are_drawn_and_counted(client):
    told = client.post("/pages", files={"file": ("a", png(size=(1300, 900)))}, data={"mode": "tiny"}).json()
    (page,) = told["pages"]
    assert (told["kind"], page["width"], page["height"]) == ("picture", 1300, 900)
    assert documents.data_uri(page["image"])[:4] == b"\x89PNG"
    assert page["modes"]["small"] | {"about": ""} == {
        "about": "", "grid": [1, 1], "tokens": 100, "newlines": 10, "separators": 1, "positions": 111,
    }  # fmt: skip
    assert page["modes"]["gundam"]["grid"] == [3, 2]
    thin = client.post("/pages", files={"file": ("a", png(size=(3000, 1)))}, data={"mode": "tiny"}).json()
    assert set(thin["pages"][0]["modes"]) == {"tiny", "small"}


def test_the_details_of_a_chat_are_told_only_to_who_asks(client, monkeypatch):
    plain = client.post("/v1/chat/completions", json=chat()).json()
    assert "lightseek" not in plain
    found = [Region("title", ((0, 0, 999, 500),), "x")]
    monkeypatch.setattr(openai_api, "find_regions", lambda text: ("", found))
    more = client.post("/v1/chat/completions", json=chat(details=True, confidence=True)).json()
    assert more["choices"] == plain["choices"]
    assert more["lightseek"]["regions"] == [{"label": "title", "boxes": [[0, 0, 300, 100]], "text": "x"}]
    assert len(more["lightseek"]["confidence"]) >= more["usage"]["completion_tokens"]
    none = {"messages": [{"role": "user", "content": "words"}], "confidence": True, "max_tokens": 2}
    assert client.post("/v1/chat/completions", json=none).status_code == 400


def test_the_openapi_description_names_every_route(client):
    described = client.get("/openapi.json").json()
    assert {"/ocr", "/summarize/text", "/compare", "/v1/chat/completions", "/metrics"} <= set(described["paths"])
    responses = described["paths"]["/ocr"]["post"]["responses"]
    assert {"200", "400", "404", "413", "422", "429", "503", "504"} <= set(responses)
