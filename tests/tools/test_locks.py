"""Tests of the locks of folders and files: there is one holder at a time, it is named, and a dead one keeps nothing."""

import os
import signal
import subprocess
import sys
import time

import pytest

from lightseek.tools import locks
from lightseek.tools.errors import Note
from lightseek.tools.locks import Locked, locked_file, locked_folder

HOLD = """
import sys, time
from lightseek.tools.locks import locked_folder
with locked_folder(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_told_who_holds_a_folder_and_a_dead_holder_keeps_nothing(holder, tmp_path):
    with (
        pytest.raises(Locked, match=rf"is in use by process {holder.pid} on \S+ since 20\d\d-"),
        locked_folder(tmp_path),
    ):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".lock").exists()
    with locked_folder(tmp_path):
        assert f'"pid": {os.getpid()}' in (tmp_path / ".lock").read_text()
    assert not list(tmp_path.iterdir())


def test_a_process_cannot_hold_a_folder_twice_but_can_again(tmp_path):
    with locked_folder(tmp_path):
        with pytest.raises(Locked, match=f"process {os.getpid()}"), locked_folder(tmp_path):
            pass
        assert (tmp_path / ".lock").exists()  # the one that failed removed nothing
    with locked_folder(tmp_path):
        pass


def test_a_folder_in_which_nothing_was_written_is_not_left_behind(tmp_path):
    with locked_folder(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()
    with locked_folder(tmp_path / "used"):
        (tmp_path / "used" / "file").touch()
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["file"]


def test_a_file_has_a_lock_beside_it(tmp_path):
    again = pytest.raises(Locked, match=r"out\.jsonl is in use")
    with (
        locked_file(tmp_path / "out.jsonl"),
        locked_file(tmp_path / "b.jsonl"),
        again,
        locked_file(tmp_path / "out.jsonl"),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_forked_child_does_not_keep_the_lock_of_its_dead_parent(tmp_path):
    script = "import os\n" + HOLD.replace('print("held", flush=True)', 'os.fork(); os.write(1, b"held\\n")')
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert [process.stdout.readline() for _ in range(2)] == ["held\n"] * 2
        process.kill()
        process.wait()
        with locked_folder(tmp_path):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_without_locks_the_work_goes_on_with_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    with pytest.warns(Note, match="cannot be locked"), locked_folder(tmp_path):
        pass


def test_many_processes_take_turns(tmp_path):
    """Each waits for its turn and counts one up. A lock that two hold at once would lose counts."""
    count = f"""
import time
from pathlib import Path
from lightseek.tools.locks import Locked, locked_file
number = Path({str(tmp_path / "number")!r})
for _ in range(50):
    while True:
        try:
            with locked_file(number):
                number.write_text(str(int(number.read_text()) + 1))
            break
        except Locked:
            time.sleep(0.0005)
"""
    (tmp_path / "number").write_text("0")
    began = time.monotonic()
    processes = [subprocess.Popen([sys.executable, "-c", count]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0], time.monotonic() - began
    assert (tmp_path / "number").read_text() == "150" and len(list(tmp_path.iterdir())) == 1
