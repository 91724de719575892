"""Scanning all of MURA's folders.

`load_mura(subset="all")`, from the folders alone and with the four CSVs to compare, against a bare
recursive `os.scandir` walk that only counts files. On a tree of empty files with MURA's true numbers
of images (40,005), studies (14,656) and patients (11,967), folders in the cache of the operating
system. Limit: twice the walk.
"""

import os
import tempfile
from pathlib import Path

from benchmarks._measure import interleaved, rows_of
from murakit.datasets._load import load_mura

LIMIT = 2.0
N_PATIENTS = {"train": 11_184, "valid": 783}
# region: normal studies, abnormal studies, images
COUNTS = {
    "train": {
        "ELBOW": (1_094, 660, 4_931),
        "FINGER": (1_280, 655, 5_106),
        "FOREARM": (590, 287, 1_825),
        "HAND": (1_497, 521, 5_543),
        "HUMERUS": (321, 271, 1_272),
        "SHOULDER": (1_364, 1_457, 8_379),
        "WRIST": (2_134, 1_326, 9_752),
    },
    "valid": {
        "ELBOW": (92, 66, 465),
        "FINGER": (92, 83, 461),
        "FOREARM": (69, 64, 301),
        "HAND": (101, 66, 460),
        "HUMERUS": (68, 67, 288),
        "SHOULDER": (99, 95, 563),
        "WRIST": (140, 97, 659),
    },
}


def run(quick):
    with tempfile.TemporaryDirectory() as folder:
        data, csvs = Path(folder, "MURA-v1.1"), Path(folder, "csvs")
        csvs.mkdir()
        n_images = make_tree(data, csvs, share=10 if quick else 1)
        functions = {
            "os.scandir walk": lambda: count_files(data),
            "load_mura, folders only": lambda: load_mura(data, subset="all"),
            "load_mura, folders and CSVs": lambda: load_mura(csvs, subset="all"),
        }
        for function in functions.values():
            found = function()
            assert n_images == (found if isinstance(found, int) else len(found.data))
        names = list(functions)
        timings = interleaved(functions, rounds=5 if quick else 11)
        return rows_of(timings, baseline=names[0], limits=dict.fromkeys(names[1:], LIMIT))


def count_files(folder):
    count = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            count += count_files(entry.path) if entry.is_dir(follow_symlinks=False) else 1
    return count


def make_tree(data, csvs, share):
    """Make empty files, one `share`-th of MURA's, with the CSVs in a folder beside; return their number."""
    n_images = n_earlier = 0
    for subset, regions in COUNTS.items():
        n_patients = N_PATIENTS[subset] // share
        n_studies = sum(normal // share + abnormal // share for normal, abnormal, _ in regions.values())
        images, labels, index = [], [], 0
        for region, (normal, abnormal, files) in regions.items():
            normal, abnormal, files = normal // share, abnormal // share, files // share
            number = {}
            for study in range(normal + abnormal):
                patient = f"patient{n_earlier + index * n_patients // n_studies + 1:05d}"
                index += 1
                number[patient] = number.get(patient, 0) + 1
                label = int(study >= normal)
                name = f"study{number[patient]}_{'positive' if label else 'negative'}"
                place = f"{subset}/XR_{region}/{patient}/{name}"
                labels.append(f"{data.name}/{place}/,{label}")
                # Spread evenly over the studies, with the region's exact sum.
                views = files * (study + 1) // (normal + abnormal) - files * study // (normal + abnormal)
                (data / place).mkdir(parents=True)
                for view in range(1, views + 1):
                    (data / place / f"image{view}.png").touch()
                    images.append(f"{data.name}/{place}/image{view}.png")
        (csvs / f"{subset}_image_paths.csv").write_text("\n".join(images) + "\n")
        (csvs / f"{subset}_labeled_studies.csv").write_text("\n".join(labels) + "\n")
        n_images += len(images)
        n_earlier += n_patients
    return n_images
