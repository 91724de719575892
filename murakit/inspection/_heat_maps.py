"""Heat maps: which parts of a radiograph speak for a class, by Captum."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch.nn import functional

from ..datasets._samples import as_samples
from ..estimators._classifier import MuraClassifier
from ..io._images import Resize, open_gray, placed, read_image, to_square
from ..metrics._labels import label_name
from ..networks._network import FromGrey
from ..plotting._style import paper
from ..utils._typing import Paths
from ..utils._validation import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BATCH = 16

# Side of the square that is covered, and the step from one to the next, as shares of the image.
_PATCH, _STEP = 1 / 7, 1 / 14

# With fewer positions along a side, a map is too coarse to point at anything.
_FEWEST_POSITIONS = 6


class HeatMaps:
    """Heat maps of a class, one for each image; made by `grad_cam`.

    Parameters
    ----------
    paths : ndarray of shape (n,)
        The images.
    maps : list of ndarray of shape (height, width), dtype float32
        One for each image, at the image's own resolution. 0: no evidence for the class; 1: the
        strongest evidence in this image. A map of zeros: the image holds no evidence for the class.
    target : object
        The class.
    proba : ndarray of shape (n,)
        The class's probability in each image.
    method : str
        What made the maps.

    Examples
    --------
    >>> import numpy as np
    >>> from murakit.inspection import HeatMaps
    >>> one = HeatMaps(["image1.png"], [np.eye(3, dtype="float32")], target=1, proba=[0.9], method="gradcam")
    >>> one.peak(0)
    (0, 0)
    """

    def __init__(
        self,
        paths: Sequence[str] | NDArray[np.object_],
        maps: Sequence[NDArray[np.float32]],
        *,
        target: Any,
        proba: ArrayLike,
        method: str,
    ) -> None:
        self.paths = paths
        self.maps = maps
        self.target = target
        self.proba = np.asarray(proba)
        self.method = method

    def __len__(self) -> int:
        return len(self.maps)

    def __repr__(self) -> str:
        return f"HeatMaps({len(self)} images, target={plain(self.target)!r}, method={self.method!r})"

    def peak(self, number: int) -> tuple[int, int]:
        """Return where a map is highest.

        Parameters
        ----------
        number : int
            Of the image.

        Returns
        -------
        x, y : int
            Column and row, in pixels of the image; of several equal ones, the first.
        """
        y, x = np.unravel_index(np.argmax(self.maps[number]), self.maps[number].shape)
        return int(x), int(y)

    def overlay(self, number: int, *, strength: float = 0.5) -> NDArray[np.uint8]:
        """Lay a map over its image.

        Parameters
        ----------
        number : int
            Of the image.
        strength : float, default=0.5
            How much the highest values cover the image, from 0 to 1.

        Returns
        -------
        picture : ndarray of shape (height, width, 3), dtype uint8
        """
        import matplotlib

        image = read_image(self.paths[number])[..., None] / 255
        heat = self.maps[number]
        colour = matplotlib.colormaps["inferno"](heat)[..., :3]
        share = (strength * heat)[..., None]
        return np.round(255 * ((1 - share) * image + share * colour)).astype(np.uint8)

    def plot(self, *, n_columns: int = 4, contour: bool = True) -> "Figure":
        """Draw each image with its map.

        Parameters
        ----------
        n_columns : int, default=4
            Images side by side.
        contour : bool, default=True
            Draw a line at half of the highest value, which is visible without colour.

        Returns
        -------
        figure : matplotlib Figure
        """
        with paper() as plt:
            n_columns = min(n_columns, len(self))
            n_rows = -(-len(self) // n_columns)
            figure, grid = plt.subplots(
                n_rows,
                n_columns,
                figsize=(1.75 * n_columns, 2.1 * n_rows),
                layout="constrained",
                squeeze=False,
            )
            for ax in grid.ravel():
                ax.axis("off")
            for number, ax in zip(range(len(self)), grid.ravel()):
                self.draw(ax, number, contour=contour)
                ax.set_title(f"P({label_name(self.target)}) = {self.proba[number]:.2f}")
        return figure

    def draw(self, ax: "Axes", number: int, *, contour: bool = True) -> None:
        """Draw one image with its map into axes.

        Parameters
        ----------
        ax : matplotlib Axes
            Where to draw.
        number : int
            Of the image.
        contour : bool, default=True
            Draw a line around the half of the highest value.
        """
        ax.imshow(self.overlay(number))
        if contour and self.maps[number].max() > 0:
            ax.contour(self.maps[number], levels=[0.5], colors="white", linewidths=0.7)
        ax.axis("off")


def grad_cam(
    clf: MuraClassifier,
    X: Paths,
    *,
    target: Any = None,
    method: str = "gradcam",
    stage: str | None = None,
) -> HeatMaps:
    """Return heat maps of the parts of radiographs that speak for a class.

    A map says what moves this network, not where an injury is: networks take shortcuts, and maps of
    well-trained and of random networks can look alike [2]_. `pointing_game` measures how often they hit a finding.

    Parameters
    ----------
    clf : MuraClassifier
        Fitted.
    X : array-like of shape (n,) or (n, 1)
        Paths of images or of study folders, which stand for all of their images.
    target : label, default=None
        The class. None: the second of two classes (abnormal); of more, the most probable of each image.
    method : {"gradcam", "occlusion"}, default="gradcam"
        ``"gradcam"``: gradients times activations of a stage [1]_; one pass, coarse. ``"occlusion"``: how
        far the class's score falls while a black square covers a part of the image [3]_; hundreds of
        passes, slow.
    stage : str, default=None
        The stage whose activations Grad-CAM weighs. None: the last one with maps of at least 6 x 6
        positions. Of a ResNet, that is the last stage if `image_size` is 192 or more.

    Returns
    -------
    heat_maps : HeatMaps
        One map an image, at the image's own resolution and aspect ratio.

    Raises
    ------
    ImportError
        Without Captum: ``pip install 'murakit[explain]'``.
    ValueError
        For an unknown method, class or stage.
    TypeError
        For another estimator than `MuraClassifier`.

    References
    ----------
    .. [1] Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
       Localization", ICCV (2017).
    .. [2] Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS (2018).
    .. [3] Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV (2014).

    Examples
    --------
    >>> import tempfile
    >>> from murakit import MuraClassifier, load_mura, make_mura
    >>> from murakit.inspection import grad_cam
    >>> root = make_mura(tempfile.mkdtemp() + "/mura", n_patients=12, image_size=64, random_state=0)
    >>> mura = load_mura(root)
    >>> clf = MuraClassifier(weights=None, image_size=32, max_epochs=1, unfreeze="head", random_state=0)
    >>> grad_cam(clf.fit(mura.data, mura.target), mura.data[:2])
    HeatMaps(2 images, target=1, method='gradcam')
    """
    if method not in ("gradcam", "occlusion"):
        raise ValueError(f"method={method!r} is not known: pass 'gradcam' or 'occlusion'.")
    if not isinstance(clf, MuraClassifier):
        raise TypeError(
            f"grad_cam looks into the network of a MuraClassifier, not of a {type(clf).__name__}: pass the one inside."
        )
    check_is_fitted(clf)
    attribution = _captum()
    images = as_samples(X).path
    network = clf.net_.module_
    known = list(network.stages)
    if stage is not None and stage not in known:
        raise ValueError(f"stage={stage!r} is no stage of {network.name}; choose one of {known}.")
    device = clf._device(predicting=True)
    model = FromGrey(network).eval()
    code = _target(clf, target)
    maps: list[NDArray[np.float32]] = []
    probabilities: list[float] = []
    codes: list[int] = []
    try:
        network.to(device)
        model.to(device)
        explain: _GradCam | _Occlusion
        if method == "gradcam":
            explain = _GradCam(attribution, model, network.stages[_stage_of(network, clf._side(), stage)])
        else:
            explain = _Occlusion(attribution, model, clf._side())
        for start in range(0, len(images), _BATCH):
            part = images[start : start + _BATCH]
            decoded = [open_gray(path) for path in part]
            squares = np.stack([to_square(image, clf._side(), cast(Resize, clf.resize)) for image in decoded])
            grey = torch.from_numpy(squares)[:, None].to(device, torch.float32) / 255
            with torch.no_grad():
                proba = model(grey).softmax(dim=1).cpu().numpy()
            wanted = proba.argmax(axis=1) if code is None else np.full(len(part), code)
            heat = explain(grey, torch.from_numpy(wanted).to(device)).clamp(min=0).cpu()
            maps += [_fitted(one, image.size, clf) for one, image in zip(heat, decoded)]
            probabilities += proba[np.arange(len(part)), wanted].tolist()
            codes += wanted.tolist()
    finally:
        network.to("cpu")
    shown = clf.classes_[codes[0]] if len(set(codes)) == 1 else "most probable"
    return HeatMaps(images, maps, target=shown, proba=np.array(probabilities), method=method)


def _captum():
    try:
        from captum import attr
    except ImportError as error:
        raise ImportError("grad_cam needs captum: pip install 'murakit[explain]'.") from error
    return attr


def _stage_of(network, size, stage):
    """Return the stage for Grad-CAM: `stage`, or the last with enough positions, or the first."""
    x = torch.zeros(2, 3, size, size, device=network.mean.device)
    sides = {}
    with torch.no_grad():
        for name, module in network.stages.items():
            x = module(x)
            # Grad-CAM needs maps with channels first and two axes of positions: no tokens, no channels last.
            if x.ndim == 4 and x.shape[-1] == x.shape[-2]:
                sides[name] = x.shape[-1]
    if not sides or stage not in (None, *sides):
        named = network.name if stage is None else f"stage {stage!r} of {network.name}"
        remedy = f"choose one of {list(sides)}, or " if sides else ""
        raise ValueError(f"{named} makes no feature maps for Grad-CAM: {remedy}pass method='occlusion'.")
    fine = [name for name, side in sides.items() if side >= _FEWEST_POSITIONS]
    return stage or (fine or list(sides)[:1])[-1]


def _target(clf, target):
    if target is None:
        return 1 if len(clf.classes_) == 2 else None
    place = np.flatnonzero(clf.classes_ == target)
    if not len(place):
        raise ValueError(
            f"target={target!r} is none of the classes {[plain(label) for label in clf.classes_]}."
        )
    return int(place[0])


class _GradCam:
    def __init__(self, attribution, model, layer):
        self.layer_cam = attribution.LayerGradCam(model, layer)

    def __call__(self, grey, target):
        return self.layer_cam.attribute(grey.requires_grad_(), target=target).detach()[:, 0]


class _Occlusion:
    def __init__(self, attribution, model, size):
        self.occlusion = attribution.Occlusion(model)
        self.side, self.step = max(1, round(size * _PATCH)), max(1, round(size * _STEP))

    def __call__(self, grey, target):
        with torch.no_grad():
            return self.occlusion.attribute(
                grey,
                sliding_window_shapes=(1, self.side, self.side),
                strides=(1, self.step, self.step),
                baselines=0,
                target=target,
                perturbations_per_eval=4,
            )[:, 0]


def _fitted(heat, own_size, clf):
    """Bring a map of the square to the image's own width and height, from 0 to 1."""
    width, height = own_size
    size = clf._side()
    left, top, inner_width, inner_height = placed(width, height, size, clf.resize)
    square = functional.interpolate(heat[None, None], (size, size), mode="bilinear", align_corners=False)
    inner = square[..., top : top + inner_height, left : left + inner_width]
    own = functional.interpolate(inner, (height, width), mode="bilinear", align_corners=False)[0, 0]
    values = own.numpy()
    return values / values.max() if values.max() > 0 else values


def pointing_game(heat_maps: HeatMaps, findings: pd.DataFrame) -> dict[str, float]:
    """Return how often the peak of a map falls on the finding, and how often a random one would.

    Parameters
    ----------
    heat_maps : HeatMaps
        Of images with and without a finding.
    findings : DataFrame
        Columns path, x0, y0, x1, y1: bounding boxes in pixels of the image, as `make_mura` writes with
        ``record_findings=True``. Paths are compared from the subset's folder on.

    Returns
    -------
    result : dict
        ``n``: number of images with a map and a finding. ``hits``: share of them whose peak lies in a
        box. ``chance``: the expected share for peaks at random places of the body. ``ratio``: ``hits``
        over ``chance``.

    Raises
    ------
    ValueError
        Where no image of the maps has a finding.

    References
    ----------
    Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV (2016).

    Examples
    --------
    >>> import numpy as np, pandas as pd, tempfile
    >>> from PIL import Image
    >>> from murakit.inspection import HeatMaps, pointing_game
    >>> path = tempfile.mkdtemp() + "/image1.png"
    >>> Image.fromarray(np.full((4, 4), 200, dtype=np.uint8)).save(path)
    >>> maps = HeatMaps([path], [np.eye(4, dtype="float32")], target=1, proba=[0.9], method="gradcam")
    >>> findings = pd.DataFrame({"path": [path], "x0": [0], "y0": [0], "x1": [2], "y1": [2]})
    >>> pointing_game(maps, findings)
    {'n': 1, 'hits': 1.0, 'chance': 0.25, 'ratio': 4.0}
    """
    boxes: dict[str, list[tuple[int, int, int, int]]] = {}
    for row in findings.itertuples(index=False):
        boxes.setdefault(_tail(row.path), []).append((row.x0, row.y0, row.x1, row.y1))
    hits, chances = [], []
    for number, path in enumerate(heat_maps.paths):
        of_image = boxes.get(_tail(path))
        if of_image is None:
            continue
        inside = np.zeros(heat_maps.maps[number].shape, dtype=bool)
        for x0, y0, x1, y1 in of_image:
            inside[max(y0, 0) : y1, max(x0, 0) : x1] = True
        x, y = heat_maps.peak(number)
        body = _body(read_image(path))
        # A map of zeros has no peak, which counts as a miss.
        hits.append(inside[y, x] and heat_maps.maps[number].max() > 0)
        chances.append(inside[body].mean())
    if not hits:
        raise ValueError("No image with a heat map has a finding: pass findings of these images.")
    hit, chance = float(np.mean(hits)), float(np.mean(chances))
    return {"n": len(hits), "hits": hit, "chance": chance, "ratio": hit / chance if chance else np.inf}


def _tail(path):
    # .../subset/XR_REGION/patient/study/image
    return "/".join(str(path).replace("\\", "/").split("/")[-5:])


def _body(image):
    """Return which pixels show the body: those brighter than Otsu's threshold."""
    counts = np.bincount(image.ravel(), minlength=256).astype(float)
    values = np.arange(256)
    below, sums = np.cumsum(counts), np.cumsum(counts * values)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = (sums[-1] * below / below[-1] - sums) ** 2 / (below * (below[-1] - below))
    if not np.isfinite(between).any():
        return np.ones(image.shape, dtype=bool)
    return image > np.nanargmax(np.where(np.isfinite(between), between, np.nan))
