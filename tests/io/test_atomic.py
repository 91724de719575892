"""A file takes its name when it is whole; what a killed writer left is cleared by the next."""

import errno
import os
import subprocess
import sys

import pytest

from murakit.io._atomic import written_whole


def write(path, text="whole"):
    with written_whole(path) as unfinished, open(unfinished, "w") as file:
        file.write(text)


def left_by(path, process):
    """The name of an unfinished file of that path that a process of that number would have."""
    with written_whole(path) as unfinished:
        pass_on = os.path.basename(unfinished).replace(f"-{os.getpid()}-", f"-{process}-")
        open(unfinished, "w").close()
    left = path.with_name(pass_on)
    left.write_text("half")
    return left


@pytest.fixture
def ended():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_an_ended_process_left_is_deleted(tmp_path, ended):
    left = left_by(tmp_path / "a[b].json", ended)
    other = left_by(tmp_path / "other.json", ended)
    write(tmp_path / "a[b].json")
    assert not left.exists() and other.exists()
    assert (tmp_path / "a[b].json").read_text() == "whole"


def test_what_a_running_process_writes_stays(tmp_path):
    left = left_by(tmp_path / "a.json", os.getppid())
    write(tmp_path / "a.json")
    assert left.read_text() == "half"


def test_two_writers_of_one_process_do_not_meet(tmp_path):
    with written_whole(tmp_path / "a.json") as one:
        open(one, "w").close()
        write(tmp_path / "a.json", "other")
        assert os.path.exists(one)
    assert (tmp_path / "a.json").read_text() == ""


def test_what_another_machine_writes_stays(tmp_path, ended, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("platform.node", lambda: "another")
        left = left_by(tmp_path / "a.json", ended)
    write(tmp_path / "a.json")
    assert left.exists()


def test_files_of_similar_names_stay(tmp_path):
    similar = [
        tmp_path / name for name in (".a.json.unfinished", ".a.json.0-1-2.unfinished", "a.json.unfinished")
    ]
    for path in similar:
        path.write_text("mine")
    write(tmp_path / "a.json")
    assert all(path.exists() for path in similar)


def test_a_full_disk_is_told_with_the_file_and_leaves_the_old_one(tmp_path):
    write(tmp_path / "a.json", "old")
    message = r"a\.json' cannot be written: No space .* Make room"
    with pytest.raises(OSError, match=message) as error, written_whole(tmp_path / "a.json") as unfinished:
        open(unfinished, "w").close()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert error.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"] and (
        tmp_path / "a.json"
    ).read_text() == "old"
