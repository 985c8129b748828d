"""Tests of the command line with nano: the output of each command, and the error messages."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from lightseek.__main__ import COMMANDS, main
from lightseek.model.config import OCRConfig
from lightseek.scores.metrics import cer
from lightseek.weights.loading import find_device, find_dtype, load_model

ROOT = Path(__file__).parents[2]
QUICK = ["--mode", "tiny", "--max-new-tokens", "4", "--device", "cpu"]


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "page.png"
    Image.new("RGB", (600, 400), "white").save(path)
    return str(path)


@pytest.fixture
def note(tmp_path):
    path = tmp_path / "note.md"
    path.write_text("# Minutes\n\nThe *pump* failed at 7:15.\n", encoding="utf-8")
    return str(path)


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Return (exit code, stdout, stderr). rich wraps errors at the width of the terminal, so stderr is joined again."""
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    return code, captured.out, " ".join(captured.err.split())


def python(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)


# --- Help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_is_quick_and_loads_no_pytorch(command):
    watch = (
        "import sys, runpy, atexit; atexit.register(lambda: print('LOADED', *sys.modules));"
        f"sys.argv = ['lightseek', *{command!r}, '--help']; runpy.run_module('lightseek', run_name='__main__')"
    )
    began = time.perf_counter()
    done = python("-c", watch)
    seconds = time.perf_counter() - began
    assert done.returncode == 0 and "usage: python -m lightseek" in done.stdout
    loaded = set(done.stdout.split("LOADED")[1].split())
    assert not loaded & {"torch", "matplotlib", "transformers", "numpy", "PIL", "rich"}
    assert seconds < 2


def test_the_modes_need_no_pytorch_either(capsys):
    done = python("-X", "importtime", "-m", "lightseek", "modes")
    assert "torch" not in done.stderr and "273" in done.stdout
    code, out, _ = run(capsys, "modes", "--json")
    rows = json.loads(out)
    assert code == 0 and {row["mode"]: row["positions"] for row in rows[:4]} == {
        "tiny": 73,
        "small": 111,
        "base": 273,
        "large": 421,
    }
    assert all(row["tokens"] + row["newlines"] + 1 == row["positions"] for row in rows)


# --- Read -------------------------------------------------------------------------------------------------------------


def test_more_new_tokens_than_positions_are_a_note_in_one_line(tmp_path):
    """The official scripts ask for 8192 new tokens, which is the number of the decoder's positions."""
    (tmp_path / "note.txt").write_text("Hi.")
    options = ["--mode", "tiny", "--device", "cpu"]
    done = [
        subprocess.run(
            [sys.executable, "-m", "lightseek", "read", "note.txt", "note.txt", *options, "--max-new-tokens", limit],
            cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for limit in ("60", "8192")
    ]  # fmt: skip
    assert [each.returncode for each in done] == [0, 0] and done[0].stdout == done[1].stdout
    notes = [line for line in done[1].stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1 and "max_new_tokens=8192" in notes[0] and "8192 positions end" in notes[0]
    assert "note: " not in done[0].stderr and "Warning" not in done[1].stderr


def test_read_writes_the_text_and_nothing_else_to_stdout(capsys, note):
    code, out, err = run(capsys, "read", note, *QUICK)
    assert code == 0 and "4 tokens (length)" in err
    again = json.loads(run(capsys, "read", note, *QUICK, "--json")[1])
    (result,) = again["pages"]
    assert out == result["text"] + "\n"
    assert len(result["tokens"]) == 4 and result["finish_reason"] == "length" and result["timings"]["encode"] > 0
    assert again["prompt"] == "<image>\nFree OCR. " and again["mode"] == "tiny" and again["model"] == "nano"
    assert run(capsys, "read", note, *QUICK, "--stream")[1] == out


def test_read_gives_one_result_a_page(capsys, tmp_path, page):
    document = tmp_path / "scan.pdf"
    sheet = Image.new("RGB", (200, 300), "white")
    sheet.save(document, save_all=True, append_images=[sheet.rotate(90)])
    code, out, _ = run(capsys, "read", str(document), page, *QUICK)
    assert code == 0
    assert re.findall(r"--- (\S+), page (\d) ---", out) == [(str(document), "1"), (str(document), "2"), (page, "1")]
    pages = json.loads(run(capsys, "read", str(document), page, *QUICK, "--json")[1])["pages"]
    assert [(each["file"], each["page"]) for each in pages] == [(str(document), 1), (str(document), 2), (page, 1)]


def test_seeds_decide_sampling(capsys, page):
    def read(seed):
        options = ["--temperature", "9", "--top-p", "1", "--seed", str(seed), "--json"]
        return json.loads(run(capsys, "read", page, *QUICK, *options)[1])["pages"][0]["tokens"]

    assert read(3) == read(3) != read(4)


# --- Trace ------------------------------------------------------------------------------------------------------------


def test_trace_as_json(capsys, note, tmp_path):
    code, out, _ = run(capsys, "trace", note, "--mode", "64", "--device", "cpu", "--json", "--cold")
    plain = json.loads(out)
    shapes = {stage["name"]: stage["shape"] for stage in plain["stages"]}
    assert code == 0 and shapes["encoder.compressor"][2:] == [8, 8] and shapes["layout"][0] == 73
    assert plain["pages"][0]["text_tokens"] > 5  # a rendered page's text is known
    assert [use["layer"] for use in plain["experts"]] == [1, 2, 3]


def test_trace_as_table_and_picture(capsys, page, tmp_path):
    text = tmp_path / "truth.txt"
    text.write_text("a b c d e f g h", encoding="utf-8")
    picture = tmp_path / "trace.png"
    options = ["--mode", "tiny", "--device", "cpu", "--cold", "--text", str(text), "--picture", str(picture)]
    code, out, _ = run(capsys, "trace", page, *options)
    assert code == 0 and "encoder.sam.blocks.1" in out and "global attention" in out and "73 positions" in out
    assert re.search(r"text tokens / 64 = 0\.\d+x compression", out) and "busiest" in out
    assert Image.open(picture).width > 500


def test_trace_of_one_page_of_many(capsys, tmp_path):
    long = tmp_path / "long.txt"
    long.write_text("line\n" * 60, encoding="utf-8")
    options = ["--mode", "tiny", "--device", "cpu", "--cold", "--json"]
    assert run(capsys, "trace", str(long), "--page", "2", *options)[0] == 0
    code, _, err = run(capsys, "trace", str(long), "--page", "9", *options)
    assert code == 2 and "there is no page 9" in err


# --- Formula ----------------------------------------------------------------------------------------------------------


def test_formula_writes_a_checkpoint_that_traces_and_reads(capsys, tmp_path, page):
    folder = tmp_path / "nano"
    assert run(capsys, "formula", "--preset", "nano", "--out", str(folder), "--dtype", "float32")[0] == 0
    code, out, err = run(capsys, "read", page, *QUICK, "--model", str(folder), "--json")
    assert code == 0 and "random" not in err and json.loads(out)["model"] == str(folder)

    (folder / "tokenizer.json").unlink()
    options = ["--mode", "tiny", "--device", "cpu", "--cold", "--model", str(folder)]
    code, out, err = run(capsys, "trace", page, *options)
    assert code == 0 and "73 positions" in out and "no tokenizer.json" in err
    code, _, err = run(capsys, "read", page, *QUICK, "--model", str(folder))
    assert code == 2 and "no tokenizer.json" in err

    code, _, err = run(capsys, "formula", "--preset", "nano", "--out", str(folder))
    assert code == 2 and "give an empty or a new folder" in err


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "required: command"),
        (["read"], "required: FILE"),
        (["read", "PAGE", "--mode", "huge"], "choose one of tiny (= 64)"),
        (["read", "PAGE", "--stream", "--json"], "not allowed with"),
        (["read", "PAGE", "--dtype", "int8"], "unknown dtype 'int8'"),
        (["read", "missing.png"], "missing.png: No such file"),
        (["read", "missing.docx"], "cannot tell what a .docx file is"),
        (["read", "PAGE", "--model", "no/such/model"], "no such folder"),
        (["read", "PAGE", "--device", "cuda:77"], "device 'cuda:77' cannot be used"),
        (["read", "PAGE", "--device", "nonsense"], "device 'nonsense' cannot be used"),
        (["trace", "PAGE", "--device", "meta"], "no values"),
        (["read", "PAGE", "--mode", "tiny", "--prompt", "<image> and <image>"], "once for each"),
        (["read", "PAGE", "--mode", "tiny", "--beams", "2", "--stream"], "beams is 2"),
        (["read", "PAGE", "--mode", "tiny", "--temperature", "-1"], "temperature is -1"),
        (["formula", "--preset", "giant", "--out", "x"], "invalid choice: 'giant'"),
        (["formula", "--preset", "nano", "--out", "PAGE"], "is there already"),
    ],
)
def test_errors_are_one_message_and_exit_code_2(capsys, page, arguments, message):
    code, out, err = run(capsys, *(page if argument == "PAGE" else argument for argument in arguments))
    assert code == 2 and out == "" and message in err
    assert err.count("error:") == 1 and "Traceback" not in err


def test_a_broken_checkpoint_is_named(capsys, page, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    code, _, err = run(capsys, "trace", page, "--model", str(tmp_path))
    assert code == 2 and "config.json" in err and "language_config is missing" in err


def test_a_closed_pipe_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -u -m lightseek modes --json | true", shell=True, capture_output=True, text=True
    )
    assert done.stderr == ""


# --- Choosing a model -------------------------------------------------------------------------------------------------


def test_a_random_nano_is_the_same_for_the_same_seed_and_leaves_random_numbers_alone():
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    model = load_model(init="random", seed=1, device="cpu")
    assert torch.equal(torch.rand(3), expected)
    again = load_model(init="random", seed=1, device="cpu")
    other = load_model(init="random", seed=2, device="cpu", dtype="bfloat16")
    assert torch.equal(model.decoder.embed.weight, again.decoder.embed.weight)
    assert not torch.equal(model.decoder.embed.weight, other.decoder.embed.weight.float())
    assert other.dtype == torch.bfloat16 and not other.training
    assert model.tokenizer.id_of("<image>") == model.config.image_token_id


def test_a_run_starts_from_the_weights_that_are_shipped_unless_it_asks_for_random_ones():
    import torch

    from lightseek.training.build import build_model
    from lightseek.training.settings import RunConfig

    shipped, random = load_model(device="cpu"), load_model(init="random", seed=3, device="cpu")
    assert shipped.dtype == torch.float32 and random.config == shipped.config == OCRConfig.preset("nano").with_(
        dtype="bfloat16"  # of the file
    )
    for init, expected in (("pretrained", shipped), ("random", random)):
        model, _ = build_model(RunConfig(init=init, seed=3), "cpu")
        assert torch.equal(model.projector.layers.weight, expected.projector.layers.weight)
    assert RunConfig().init == "pretrained"
    assert not torch.equal(shipped.projector.layers.weight, random.projector.layers.weight)


def test_devices_and_dtypes():
    import torch

    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")
    assert find_dtype("float16") == torch.float16 and find_dtype(torch.float32) == torch.float32
    assert find_dtype(None) is None
    for name in ("int8", "nn"):
        with pytest.raises(ValueError, match="floating-point"):
            find_dtype(name)


OWN = "The ferry left at nine. Twelve people were on board. Nobody had told them about the storm behind the island."


@pytest.mark.parametrize("mode", ["tiny", "small", "base", "large", "gundam"])
def test_a_text_of_a_user_is_read_in_every_mode(capsys, tmp_path, mode):
    """At most 5 % of the characters of three sentences are wrong. nano was not trained on gundam-m."""
    own = tmp_path / "own.txt"
    own.write_text(OWN)
    code, out, err = run(capsys, "read", str(own), "--mode", mode)
    assert code == 0 and cer(out, OWN) <= 5, out
    assert re.search(r"drawn on \d+ pages? of (\d+) x \1 pixels in letters of \d+ pixels", err)


def test_a_long_text_is_read_from_several_pages_as_one(capsys, tmp_path):
    own = tmp_path / "own.txt"
    own.write_text(f"{OWN} {OWN}")
    code, out, err = run(capsys, "read", str(own), "--mode", "tiny")
    assert code == 0 and re.search("drawn on [2-9] pages", err)
    assert "---" not in out and cer(out, f"{OWN} {OWN}") <= 5, out


@pytest.mark.parametrize("page", ["README.md", "docs/one-page.md"])
def test_the_read_commands_of_the_docs_give_the_right_text(capsys, monkeypatch, page):
    monkeypatch.chdir(ROOT)
    commands = re.findall(r"^python -m lightseek (read docs/.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert commands
    for command in commands:
        argv = shlex.split(command, comments=True)
        _, out, _ = run(capsys, *argv)
        assert cer(out, (ROOT / argv[1]).read_text()) <= 5, out


# --- What people bring ------------------------------------------------------------------------------------------------


def write_pdf(path, texts: list[str], size=(595, 842)):
    """A PDF with one line of text a page."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(texts)))
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {len(texts)}>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for i, text in enumerate(texts):
        content = f"BT /F 40 Tf 60 {size[1] - 100} Td ({text}) Tj ET"
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {size[0]} {size[1]}]/Resources<</Font<</F 3 0 R>>>>"
            f"/Contents {5 + 2 * i} 0 R>>"
        )
        objects.append(f"<</Length {len(content)}>>stream\n{content}\nendstream")
    body, places = "%PDF-1.7\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{each}\nendobj\n"
    table = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n" + "".join(f"{at:010d} 00000 n \n" for at in places)
    end = f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(body)}\n%%EOF\n"
    path.write_text(body + table + end, encoding="ascii")
    return str(path)


@pytest.mark.parametrize("command", ["read", "summarize"])
def test_one_bad_file_does_not_stop_the_others(capsys, tmp_path, page, command):
    good = [tmp_path / f"good-{i}.png" for i in (1, 2)]
    for path in good:
        Image.new("RGB", (300, 200), "white").save(path)
    broken, strip = tmp_path / "broken.png", tmp_path / "strip.png"
    noise = Image.effect_noise((300, 200), 80)
    noise.save(broken)
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    Image.new("RGB", (3000, 1), "black").save(strip)
    empty = write_pdf(tmp_path / "empty.pdf", [])
    bad = [str(broken), empty, str(strip), str(tmp_path / "missing.png")]
    options = ["--mode", "base", "--max-new-tokens", "2", "--device", "cpu"]
    code, out, err = run(capsys, command, str(good[0]), *bad, str(good[1]), *options)
    assert code == 2 and re.findall(r"--- (\S+?)(?:, page 1)? ---", out) == [str(path) for path in good]
    assert err.count("error:") == 4 and all(path in err for path in bad)
    assert "empty.pdf is not a readable PDF: it has no pages" in err and "Traceback" not in err
    code, out, err = run(capsys, command, empty, *options)
    assert code == 2 and out == "" and "it has no pages" in err


def test_a_page_range_chooses_pages(capsys, tmp_path):
    document = write_pdf(tmp_path / "log.pdf", [f"Page {i} of the log." for i in range(1, 8)])
    code, out, _ = run(capsys, "read", document, *QUICK, "--page-range", "2-3,6-")
    assert code == 0 and re.findall(r", page (\d) ---", out) == ["2", "3", "6", "7"]
    code, _, err = run(capsys, "read", document, *QUICK, "--page-range", "9")
    assert code == 2 and "has 7 page(s), counted from 1: there is none of --page-range" in err
    for wrong in ("0", "3-2", "a", "1,,2", "-3"):
        code, _, err = run(capsys, "read", document, *QUICK, f"--page-range={wrong}")
        assert code == 2 and "pages are numbers from 1 on" in err
    code, _, err = run(capsys, "summarize", document, *QUICK, "--page-range", "2-5", "--max-pages", "3", "--beams", "1")
    assert code == 0 and "192 vision tokens" in err and "1 pages dropped" in err


def test_the_pages_of_a_long_pdf_are_drawn_one_at_a_time(capsys, tmp_path, monkeypatch):
    from lightseek.page.pdf import PdfPages

    document = write_pdf(tmp_path / "long.pdf", [f"Page {i}." for i in range(1, 301)])
    drawn, draw = [], PdfPages.draw
    monkeypatch.setattr(PdfPages, "draw", lambda self, index: drawn.append(index) or draw(self, index))
    monkeypatch.setattr("lightseek.text.generate.generate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(capsys, "read", document, *QUICK)
    assert drawn == [0, 1]  # page 1 is read now
    drawn.clear()
    assert run(capsys, "trace", document, "--page", "299", "--mode", "tiny", "--device", "cpu", "--cold")[0] == 0
    assert drawn == [298]


def locked_pdf(path, user: bytes, owner: bytes) -> str:
    """A page that says "Pump 7", encrypted with RC4 of 40 bits (PDF 1.7, 7.6.3)."""
    import hashlib
    import struct

    pad = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")

    def md5(data: bytes) -> bytes:
        return hashlib.md5(data, usedforsecurity=False).digest()

    def rc4(key: bytes, data: bytes) -> bytes:
        state, j, out = list(range(256)), 0, bytearray()
        for i in range(256):
            j = (j + state[i] + key[i % len(key)]) % 256
            state[i], state[j] = state[j], state[i]
        i = j = 0
        for byte in data:
            i = (i + 1) % 256
            j = (j + state[i]) % 256
            state[i], state[j] = state[j], state[i]
            out.append(byte ^ state[(state[i] + state[j]) % 256])
        return bytes(out)

    user, owner = (user + pad)[:32], (owner + pad)[:32]
    o = rc4(md5(owner)[:5], user)
    key = md5(user + o + struct.pack("<i", -4) + b"0123456789abcdef")[:5]
    content = rc4(md5(key + struct.pack("<I", 5)[:3] + b"\0\0")[:10], b"BT /F 40 Tf 60 700 Td (Pump 7) Tj ET")
    u = rc4(key, pad)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[4 0 R]/Count 1>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F 3 0 R>>>>/Contents 5 0 R>>",
        b"<</Length %d>>stream\n%b\nendstream" % (len(content), content),
        b"<</Filter/Standard/V 1/R 2/Length 40/P -4/O<%b>/U<%b>>>" % (o.hex().encode(), u.hex().encode()),
    ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"xref\n0 7\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % at for at in places)
    name = b"0123456789abcdef".hex().encode()
    end = b"trailer<</Size 7/Root 1 0 R/Encrypt 6 0 R/ID[<%b><%b>]>>\nstartxref\n%d\n%%%%EOF\n" % (name, name, len(out))
    path.write_bytes(out + table + end)
    return str(path)


def test_a_locked_pdf_opens_with_its_password(capsys, tmp_path):
    from lightseek.page.render import render_pdf

    locked, open_ = locked_pdf(tmp_path / "locked.pdf", b"harbour", b"master"), tmp_path / "open.pdf"
    locked_pdf(open_, b"", b"master")  # with an owner's password only, it opens without one
    pages = [render_pdf(path, password=password)[0] for path, password in ((locked, "harbour"), (open_, None))]
    assert pages[0].tobytes() == pages[1].tobytes() and min(pages[0].tobytes()) < 50
    for command in ("read", "summarize", "trace"):
        code, out, err = run(capsys, command, locked, *QUICK[:2], "--device", "cpu")
        assert code == 2 and out == "" and "locked.pdf is encrypted: give its password (--password)" in err
        code, _, err = run(capsys, command, locked, *QUICK[:2], "--device", "cpu", "--password", "wrong")
        assert code == 2 and "this is not its password" in err
    assert run(capsys, "read", locked, *QUICK, "--password", "harbour")[0] == 0
    assert run(capsys, "summarize", locked, *QUICK, "--beams", "1", "--password", "harbour")[0] == 0


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_an_output_that_is_not_utf_8_loses_nothing(tmp_path, encoding):
    import os

    path = tmp_path / "Rechnung \u2116 5 \u2014 \u6587\u6863 \U0001f600.png"
    Image.new("RGB", (300, 200), "white").save(path)
    other = tmp_path / "b.png"
    Image.new("RGB", (300, 200), "white").save(other)

    environment = os.environ | {"PYTHONIOENCODING": encoding}

    def lines(*arguments):
        command = [sys.executable, "-m", "lightseek", *arguments]
        done = subprocess.run(command, capture_output=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode(encoding)

    assert "tiny" in lines("modes")
    assert "2116 5" in (out := lines("read", str(path), str(other), *QUICK)) and "b.png, page 1" in out
    found = json.loads(lines("read", str(path), *QUICK, "--json", "--prompt", "\u8bfb\u51fa\u00e9\U0001f600"))
    assert found["prompt"] == "<image>\n\u8bfb\u51fa\u00e9\U0001f600" and found["pages"][0]["file"] == str(path)
    for program in ("train", "ablate"):
        code = f"import sys, atexit, {program} as p; atexit.register(lambda: print('\\u6587')); p.main(['--help'])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, env=environment)
        assert done.returncode == 0 and done.stdout.decode(encoding).endswith("\\u6587\n")


def test_a_receipt_with_equal_lines_is_read_as_it_stands(capsys, tmp_path):
    text = "\n".join(["Coffee, large 3.20 EUR"] * 4)
    receipt = tmp_path / "receipt.txt"
    receipt.write_text(text, encoding="utf-8")
    options = ["--mode", "tiny", "--device", "cpu", "--max-new-tokens", "120"]
    found = {name: run(capsys, "read", str(receipt), *options, *flags)[1].strip() for name, flags in {
        "default": [], "none": ["--no-repeat-ngram", "none"], "official": ["--no-repeat-ngram", "official"],
    }.items()}  # fmt: skip
    assert cer(found["default"], text) == cer(found["none"], text) == 0 < cer(found["official"], text)
    code, _, err = run(capsys, "read", str(receipt), *options, "--no-repeat-ngram", "some")
    assert code == 2 and "unknown guard 'some': choose one of official, vllm, none, or a number" in err
