"""Reading radiographs from a ZIP archive.

`read_square` of synthetic radiographs of 512 pixels at 224, from an archive as it is downloaded
(deflated) and from one that only stores, against the same files in a folder; in one thread, and
with one thread a core; files in the cache of the operating system. They are written anew by Pillow,
with libpng's choice of filters: those of `make_mura` take less time to decode than radiographs do.
Limit: 1.1 times the folder.
Below, listing an archive with as many files as MURA has (`load_mura` when it is first opened).
"""

import os
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from joblib import cpu_count
from PIL import Image

from benchmarks._measure import interleaved, rows_of
from benchmarks._work import radiographs
from benchmarks.bench_scan import make_tree
from murakit import load_mura, read_image, read_square
from murakit.io._filesystem import _read_directory

LIMIT = 1.1
SIZE = 224
METHODS = {"deflated": zipfile.ZIP_DEFLATED, "stored": zipfile.ZIP_STORED}


def run(quick):
    n_images, rounds = (40, 3) if quick else (400, 9)
    rows = []
    with radiographs(n_images) as (folder, paths, _):
        for path in paths:
            Image.fromarray(read_image(path)).save(path)
        archived = {
            name: packed(folder / f"{name}.zip", folder, paths, method) for name, method in METHODS.items()
        }
        for n_threads in (1, cpu_count()):
            label = f"{n_threads} thread{'s' if n_threads > 1 else ''}"
            baseline = f"folder, {n_images} images, {label}"
            functions = {baseline: lambda n=n_threads: read(paths, n)}
            for name, members in archived.items():
                functions[f"ZIP, {name}, {label}"] = lambda n=n_threads, members=members: read(members, n)
            timings = interleaved(functions, rounds=rounds)
            rows += rows_of(timings, baseline=baseline, limits=dict.fromkeys(list(functions)[1:], LIMIT))
    return rows + listing(quick)


def packed(path, folder, paths, method):
    """Pack files into an archive, and return their paths in it."""
    names = [os.path.relpath(file, folder) for file in paths]
    with zipfile.ZipFile(path, "w", method) as archive:
        for file, name in zip(paths, names, strict=True):
            archive.write(file, name)
    return [f"{path}!{name}" for name in names]


def read(paths, n_threads):
    if n_threads == 1:
        return [read_square(path, SIZE) for path in paths]
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(lambda path: read_square(path, SIZE), paths))


def listing(quick):
    with tempfile.TemporaryDirectory() as folder:
        data, csvs = Path(folder, "MURA-v1.1"), Path(folder, "csvs")
        csvs.mkdir()
        n_images = make_tree(data, csvs, share=10 if quick else 1)
        archive = Path(folder, "MURA-v1.1.zip")
        packed(archive, folder, sorted(map(str, data.rglob("*.png"))), zipfile.ZIP_STORED)

        def first():
            _read_directory.cache_clear()
            assert len(load_mura(archive, subset="all").data) == n_images

        functions = {
            f"load_mura, folder of {n_images:,} images": lambda: load_mura(data, subset="all"),
            "load_mura, ZIP, opened for the first time": first,
            "load_mura, ZIP, opened before": lambda: load_mura(archive, subset="all"),
        }
        return rows_of(interleaved(functions, rounds=3 if quick else 7), baseline=next(iter(functions)))
