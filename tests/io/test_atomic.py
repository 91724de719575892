"""A file takes its name when it is whole; what a killed writer left is cleared by the next."""

import csv
import errno
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import murakit
from murakit import evaluate_predictions, load_mura, make_mura, write_mura_csv
from murakit.io._atomic import written_whole
from murakit.io._csv import write_csv


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


def test_a_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "a.json")
    for text in ("one", "two"):
        write(tmp_path / "link.json", text)
        assert (tmp_path / "link.json").is_symlink() and (tmp_path / "real" / "a.json").read_text() == text


def test_pipes_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="is a pipe or device"):
        write(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


# -- what murakit writes --------------------------------------------------------------------

WRITERS = {
    "CSV": lambda path: write_csv(path, [["a/b", 1]]),
    "the competition's file": lambda path: write_mura_csv(STUDIES, path),
    "an evaluation": lambda path: EVALUATION.to_json(path),
}

STUDIES = pd.DataFrame({"path": ["valid/XR_WRIST/patient00006/study1"], "prediction": [1]})

EVALUATION = evaluate_predictions(
    [0, 1] * 4, np.linspace(0.2, 0.9, 8), patients=np.arange(8), level="image", n_resamples=10
)


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_is_full_leaves_the_old_file(tmp_path, name):
    path = tmp_path / "out"
    WRITERS[name](path)
    before = path.read_bytes()
    # A limit on the size of files is what a full disk is to a writer.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"out' cannot be written: .* Make room"):
            WRITERS[name](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["out"]


def test_every_file_is_written_by_the_atomic_writer():
    """Modules that open files for writing get their names from `written_whole`."""
    package = Path(murakit.__file__).parent
    writes = re.compile(
        r"""open\([^)]*["'][wax]b?["']|\.write_(text|bytes)\(|\.to_csv\((?!path, index)|np\.save"""
    )
    sources = {
        path.relative_to(package).as_posix(): path.read_text("utf-8") for path in package.rglob("*.py")
    }
    found = {
        name for name, source in sources.items() if writes.search(source) and "written_whole" not in source
    }
    # write_model, which save_model gives such a name.
    assert found == {"io/_safetensors.py"}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(tmp_path, start):
    write_csv(tmp_path / "a.csv", [[f"{start}cmd|' /C calc'!A0", -1, "plain"]])
    with open(tmp_path / "a.csv", newline="") as file:
        assert list(csv.reader(file)) == [[f"./{start}cmd|' /C calc'!A0", "-1", "plain"]]


def test_a_data_set_whose_folder_is_named_like_a_formula_lists_the_same_files(tmp_path):
    root = make_mura(tmp_path / "=1+1", n_patients=4, image_size=32, random_state=0)
    for line in Path(root, "train_image_paths.csv").read_text().splitlines():
        assert line.startswith("./=1+1/") and (tmp_path / line).is_file()
    assert len(load_mura(root).data)
