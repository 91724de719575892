import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TINY
from PIL import Image

from murakit import load_mura, make_mura, networks
from murakit.networks._pretrained import clear_weights_cache

# Tiny networks gain nothing from threads, and lose much where other processes want the cores too.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def tiny_backbone(monkeypatch):
    """A backbone "tiny" beside the real ones, for tests in which the network does not matter."""
    monkeypatch.setitem(networks.BACKBONES, "tiny", TINY)


@pytest.fixture(autouse=True)
def fresh_weights():
    """No weights that an earlier test has left for the next network."""
    clear_weights_cache()


@pytest.fixture(autouse=True)
def no_figures_left():
    """No picture of an earlier test: matplotlib warns of many."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def small_mura(tmp_path_factory):
    """The root of a small synthetic MURA: 30 patients, two regions."""
    root = tmp_path_factory.mktemp("data") / "MURA-v1.1"
    return make_mura(root, n_patients=30, regions=["wrist", "elbow"], image_size=48, random_state=0)


@pytest.fixture(scope="session")
def images(small_mura):
    """Its training images."""
    return load_mura(small_mura)


@pytest.fixture(scope="session")
def studies(small_mura):
    """Its training studies."""
    return load_mura(small_mura, level="study")


@pytest.fixture(scope="session")
def real_data():
    """The folder of real radiographs, or a skip that says what is missing."""
    default = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("MURAKIT_DATA", default))
    if not (folder / "nih_cxr").is_dir():
        pytest.skip("no real radiographs: neither MURAKIT_DATA nor ../shared/data holds nih_cxr/")
    return folder


@pytest.fixture
def mura_tree(tmp_path):
    """A function that writes studies, each with its number of images or their names, and MURA's CSVs."""

    def write(studies, *, name="MURA-v1.1", csvs=True, csv_name="MURA-v1.1", csv_folder=None):
        root = tmp_path / name
        lines = {}
        for place, images in studies.items():
            folder = root / place
            folder.mkdir(parents=True)
            names = [f"image{i}.png" for i in range(1, images + 1)] if isinstance(images, int) else images
            subset = place.split("/")[0]
            for image in names:
                write_image(folder / image)
                lines.setdefault(f"{subset}_image_paths.csv", []).append(f"{csv_name}/{place}/{image}")
            label = int(place.endswith("_positive"))
            lines.setdefault(f"{subset}_labeled_studies.csv", []).append(f"{csv_name}/{place}/,{label}")
        if csvs:
            where = tmp_path / csv_folder if csv_folder else root
            where.mkdir(exist_ok=True)
            for file, rows in lines.items():
                (where / file).write_text("\n".join(rows) + "\n")
        return root

    values = iter(range(10_000))

    def write_image(path):
        # Every image has pixels of its own, so that none is another's duplicate.
        value = next(values)
        pixels = np.array([[value % 256, value // 256], [7, 7]], dtype=np.uint8)
        Image.fromarray(pixels).save(path, format="PNG")

    return write
