"""A synthetic MURA: radiographs for everybody, in the layout of the data set that needs an agreement."""

import math
import numbers
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ...io._csv import write_csv
from ._anatomy import ANATOMY
from ._radiograph import draw_radiograph
from ._sampling import draw_finding, draw_habits, draw_view


def write_png(path, pixels, mode):
    """Write a PNG file, at the lowest compression level: noise hardly packs, and time is what counts."""
    Image.fromarray(pixels).convert(mode).save(path, format="PNG", compress_level=1)


_COUNTS = {  # region: normal and abnormal studies in the public parts of MURA v1.1
    "elbow": (1186, 726),
    "finger": (1372, 738),
    "forearm": (659, 351),
    "hand": (1598, 587),
    "humerus": (389, 338),
    "shoulder": (1463, 1552),
    "wrist": (2274, 1423),
}

_VIEWS = (1, 2, 3, 4)

_VIEW_SHARES = {
    "humerus": (8, 72, 17, 3),
    "elbow": (8, 58, 26, 8),
}  # percent of the studies, for each of _VIEWS

_MOST_VIEW_SHARES = (8, 22, 60, 10)

_SEVERAL_STUDIES = 0.09  # share of the patients with more than one study

_IN_VIEW = 0.75  # probability that a view of an abnormal study shows its finding

# What a stream of random numbers is for; every stream is named by (seed, patient, study, purpose).
_PLAN, _HABITS, _STUDY, _IMAGE = 0, 1, 2, 10


@dataclass(frozen=True, slots=True)
class _Study:
    subset: str
    region: str
    patient: int
    turn: int  # the patient's first study is 0
    number: int  # as in the folder's name: counts the patient's studies of this region from 1
    label: int

    @property
    def folder(self):
        outcome = "positive" if self.label else "negative"
        return (
            f"{self.subset}/XR_{self.region.upper()}/patient{self.patient:05d}/study{self.number}_{outcome}"
        )


def make_mura(
    root: str | os.PathLike,
    *,
    n_patients: int = 60,
    regions: str | Sequence[str] | None = None,
    image_size: int = 512,
    abnormal_fraction: float = 0.4,
    noise: float = 1.0,
    valid_fraction: float = 0.2,
    patient_effect: float = 1.0,
    record_findings: bool = False,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
) -> Path:
    """Write synthetic radiographs in the layout of MURA v1.1.

    The files are laid out, named, labelled and listed exactly as in MURA, which nobody may pass on, so
    examples, tests and benchmarks run on them and then on the real data set without a change. The images
    are drawings of bones, not simulations of a body: a model trained on them knows nothing about
    patients.

    Parameters
    ----------
    root : str or path-like
        Folder to write, such as ``"MURA-v1.1"``. It must not exist or be empty. Paths in the CSV files
        begin with its name.
    n_patients : int, default=60
        Number of patients in both subsets together, at least 2. More than 90 % of them have one study,
        the others two to four.
    regions : str or list of str, default=None
        Regions to draw, such as ``"wrist"`` or ``["XR_WRIST", "hand"]``. None is all seven of MURA.
    image_size : int, default=512
        Longer side of every image in pixels, at least 32. The shorter side varies between 0.35 and 1 of
        it.
    abnormal_fraction : float, default=0.4
        Share of abnormal studies, in (0, 1). Regions differ from each other as they do in MURA.
    noise : float, default=1.0
        Quantum noise, relative to that of a common exposure. 0 gives images without noise.
    valid_fraction : float, default=0.2
        Share of the patients in the subset "valid", in (0, 1). The others are in "train".
    patient_effect : float, default=1.0
        How far patients (and the machines and technicians that they meet) differ from each other, in [0,
        1]. With 1, a model can recognise a patient and recall the label, as it can in MURA; with 0, all
        patients have the same body, the same exposure and the same film.
    record_findings : bool, default=False
        Whether to write ``findings.csv``: a line for each finding visible on an image, with the columns
        path, kind ("fracture", "displaced", "hardware" or "erosion") and the bounding box x0, y0, x1, y1
        in pixels of that image, x1 and y1 exclusive. The images are the same with and without it.
    random_state : int, RandomState, Generator or None, default=None
        Seed. The same arguments and seed give the same pixels on every platform. NumPy's global state is
        neither used nor changed.

    Returns
    -------
    pathlib.Path
        The folder written.

    Raises
    ------
    FileExistsError
        If `root` exists and is not an empty folder.
    ValueError
        If a region is unknown or a number is out of its range.
    TypeError
        If `random_state` is not a seed, or `n_patients` or `image_size` is not an integer.

    See Also
    --------
    load_mura : Loads such a folder: paths, labels and patients.
    check_mura : Every problem of such a folder.

    Notes
    -----
    Regions, labels, views per study and studies per patient are in the proportions of MURA [1]_. Regions
    and labels are apportioned, not drawn, so small sets are balanced: each subset holds both labels and
    all regions where it has enough studies.

    An abnormal study has one finding, in two fifths of them hardware; most fractures are healing, with callus.
    At least one view shows the finding; each of the others shows it with a probability of 0.75. About two
    thirds of the patients have RGB files with three equal channels, the others files with one channel.

    A bounding box marks the break of a bone, not all of the fragment that it shifts.

    The tree is written beside `root` and renamed when it is complete, so an interrupted call leaves no
    data set that only looks whole.

    References
    ----------
    .. [1] P. Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal
       Radiographs", arXiv:1712.06957, 2017.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from murakit import make_mura
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     root = Path(folder) / "MURA-v1.1"
    ...     root = make_mura(root, n_patients=5, regions="wrist", image_size=64, random_state=0)
    ...     sorted(path.name for path in root.glob("valid*"))
    ...     print((root / "valid_labeled_studies.csv").read_text().strip())
    ['valid', 'valid_image_paths.csv', 'valid_labeled_studies.csv']
    MURA-v1.1/valid/XR_WRIST/patient00005/study1_negative/,0
    """
    root = Path(os.path.abspath(Path(root).expanduser()))
    regions = _check_regions(regions)
    _check_integer("n_patients", n_patients, 2)
    _check_integer("image_size", image_size, 32)
    _check_number("abnormal_fraction", abnormal_fraction, 0, 1, closed=False)
    _check_number("valid_fraction", valid_fraction, 0, 1, closed=False)
    _check_number("patient_effect", patient_effect, 0, 1)
    _check_number("noise", noise, 0, 100)
    seed = _seed(random_state)
    _check_free(root)

    studies = _plan_studies(int(n_patients), regions, abnormal_fraction, valid_fraction, seed)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=root.parent, prefix=f".{root.name}-", suffix="-unfinished"
    ) as scratch:
        # A folder in the scratch folder, because that itself is closed to everybody but its owner.
        tree = Path(scratch) / root.name
        tree.mkdir()
        draw = _Draw(tree, seed, int(image_size), float(noise), float(patient_effect))
        for study in studies:
            draw(study)
        _write_lists(tree, studies, draw.images)
        if record_findings:
            write_csv(tree / "findings.csv", [("path", "kind", "x0", "y0", "x1", "y1"), *draw.findings])
        if root.exists():
            root.rmdir()
        tree.replace(root)
    return root


class _Draw:
    """Draws studies into a folder and remembers what it wrote."""

    def __init__(self, tree, seed, image_size, noise, patient_effect):
        self.tree = tree
        self.seed = seed
        self.options = {"image_size": image_size, "noise": noise}
        self.patient_effect = patient_effect
        self.images = {}  # study: names of its images
        self.findings = []

    def __call__(self, study):
        patient = self._habits(study.patient)
        rng = _generator(self.seed, study.patient, study.turn, _STUDY)
        n_views = _draw_n_views(rng, study.region)
        finding = draw_finding(rng) if study.label else None
        certain = int(rng.integers(n_views))
        self.images[study] = [f"{study.folder}/image{number + 1}.png" for number in range(n_views)]
        (self.tree / study.folder).mkdir(parents=True)
        for number, name in enumerate(self.images[study]):
            rng = _generator(self.seed, study.patient, study.turn, _IMAGE + number)
            shown = rng.random() < _IN_VIEW or number == certain
            view = draw_view(rng, number)
            pixels, box = draw_radiograph(
                study.region, patient, view, finding if shown else None, **self.options
            )
            write_png(self.tree / name, pixels, patient.mode)
            if box is not None:
                self.findings.append((f"{self.tree.name}/{name}", finding.kind, *box))

    def _habits(self, patient):
        mode = "L" if (patient + self.seed) % 3 == 0 else "RGB"
        return draw_habits(_generator(self.seed, patient, 0, _HABITS), self.patient_effect, mode)


def _draw_n_views(rng, region):
    shares = _VIEW_SHARES.get(region, _MOST_VIEW_SHARES)
    ticket = int(rng.integers(100))
    return next(n for n, share in zip(_VIEWS, np.cumsum(shares), strict=True) if ticket < share)


# ---------------------------------------------------------------------------------------------------------
# Who has which study
# ---------------------------------------------------------------------------------------------------------


def _plan_studies(n_patients, regions, abnormal_fraction, valid_fraction, seed):
    """Return all studies, ordered by subset, region and patient as in MURA."""
    rng = _generator(seed, 0, 0, _PLAN)
    n_valid = min(max(round(valid_fraction * n_patients), 1), n_patients - 1)
    patients = {"train": n_patients - n_valid, "valid": n_valid}
    slots = {subset: _patients_of_studies(rng, n) for subset, n in patients.items()}
    sizes = [len(of_subset) for of_subset in slots.values()]
    abnormal = _apportion(round(abnormal_fraction * sum(sizes)), sizes, *_both_labels(sizes))

    studies, first, seen = [], 1, set()
    for (subset, of_subset), n_abnormal in zip(slots.items(), abnormal, strict=True):
        deck = _deck(regions, len(of_subset), n_abnormal, seen)
        seen |= {region for region, _ in deck}
        order = rng.permutation(len(deck))
        dealt = [(first + patient, *deck[card]) for patient, card in zip(of_subset, order, strict=True)]
        studies += _numbered(subset, dealt)
        first += patients[subset]
    return sorted(studies, key=lambda study: (study.subset, study.region, study.patient, study.number))


def _patients_of_studies(rng, n_patients):
    """Patient (from 0) of every study: one for each, and one to three more for a few."""
    several = int(_SEVERAL_STUDIES * n_patients)
    chosen = rng.permutation(n_patients)[:several]
    more = rng.integers(1, 4, size=several)
    return sorted(
        [*range(n_patients), *(int(p) for p, n in zip(chosen, more, strict=True) for _ in range(n))]
    )


def _deck(regions, n_studies, n_abnormal, seen):
    """Return (region, label) of a subset's studies; if they are few, regions not `seen` yet come first."""
    floor = [1] * len(regions)
    if n_studies < len(regions):
        floor = [int(region not in seen) for region in regions] if seen else [0] * len(regions)
        floor = [1 if needed and sum(floor[:at]) < n_studies else 0 for at, needed in enumerate(floor)]
    studies = _apportion(
        n_studies, [sum(_COUNTS[region]) for region in regions], floor, [n_studies] * len(regions)
    )
    rates = [_COUNTS[region][1] / sum(_COUNTS[region]) for region in regions]
    floor, cap = _both_labels(studies)
    if not sum(floor) <= n_abnormal <= sum(cap):
        floor, cap = [0] * len(regions), studies
    abnormal = _apportion(n_abnormal, [n * rate for n, rate in zip(studies, rates, strict=True)], floor, cap)
    deck = []
    for region, n, n_positive in zip(regions, studies, abnormal, strict=True):
        deck += [(region, 1)] * n_positive + [(region, 0)] * (n - n_positive)
    return deck


def _both_labels(sizes):
    """Fewest and most abnormal studies that leave both labels in every group of more than one."""
    return [int(n > 1) for n in sizes], [n - 1 if n > 1 else n for n in sizes]


def _apportion(total, weights, floor, cap):
    """Share out `total` by largest remainder, each part within its floor and cap."""
    total = min(max(total, sum(floor)), sum(cap))
    quotas = [total * weight / sum(weights) for weight in weights]
    parts = [min(max(int(quota), low), high) for quota, low, high in zip(quotas, floor, cap, strict=True)]
    while (missing := total - sum(parts)) != 0:
        step = 1 if missing > 0 else -1
        limit = cap if step > 0 else floor
        free = [at for at in range(len(parts)) if parts[at] != limit[at]]
        parts[max(free, key=lambda at: step * (quotas[at] - parts[at]))] += step
    return parts


def _numbered(subset, dealt):
    """Turn (patient, region, label) into studies, numbered within a patient's region."""
    turns, numbers_, studies = {}, {}, []
    for patient, region, label in dealt:
        turn = turns.setdefault(patient, 0)
        number = numbers_.get((patient, region), 0) + 1
        turns[patient], numbers_[patient, region] = turn + 1, number
        studies.append(_Study(subset, region, patient, turn, number, label))
    return studies


# ---------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------


def _write_lists(tree, studies, images):
    for subset in ("train", "valid"):
        of_subset = [study for study in studies if study.subset == subset]
        paths = [(f"{tree.name}/{name}",) for study in of_subset for name in images[study]]
        labels = [(f"{tree.name}/{study.folder}/", study.label) for study in of_subset]
        write_csv(tree / f"{subset}_image_paths.csv", paths)
        write_csv(tree / f"{subset}_labeled_studies.csv", labels)


# ---------------------------------------------------------------------------------------------------------
# Arguments
# ---------------------------------------------------------------------------------------------------------


def _check_regions(regions):
    if regions is None:
        return list(_COUNTS)
    given = [regions] if isinstance(regions, str) else list(regions)
    names = [str(region).lower().removeprefix("xr_") for region in given]
    unknown = [region for region, name in zip(given, names, strict=True) if name not in ANATOMY]
    if unknown or not names:
        problem = f"cannot draw the regions {unknown!r}" if unknown else "regions is empty"
        raise ValueError(f"{problem}; choose from {', '.join(ANATOMY)}, or None for all of them.")
    return [region for region in _COUNTS if region in names]


def _check_integer(name, value, low):
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer of at least {low}, got {value!r}.")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}.")


def _check_number(name, value, low, high, closed=True):
    fits = isinstance(value, numbers.Real) and math.isfinite(value)
    fits = fits and (low <= value <= high if closed else low < value < high)
    if not fits:
        bounds = f"[{low}, {high}]" if closed else f"({low}, {high})"
        raise ValueError(f"{name} must be a number in {bounds}, got {value!r}.")


def _check_free(root):
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise FileExistsError(
            f"{root} exists and is not an empty folder; give another root, or delete it first."
        )


def _seed(random_state):
    if random_state is None:
        return int(np.random.SeedSequence().entropy)
    if isinstance(random_state, numbers.Integral) and not isinstance(random_state, bool):
        if random_state < 0:
            raise ValueError(f"random_state must not be negative, got {random_state}.")
        return int(random_state)
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(1 << 62))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(1 << 31, dtype=np.int64))
    raise TypeError(
        f"random_state must be None, an integer, a RandomState or a Generator, got {random_state!r}."
    )


def _generator(*name):
    """Return the stream of random numbers with a name of four integers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(name)))
