"""`to_onnx`: a model for programs without murakit."""

import copy
import json
import os
import tempfile

import numpy as np
import torch
from PIL import Image
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ..estimators._classifier import MuraClassifier
from ..io._atomic import written_whole
from ..networks._frozen import drop_if_changed
from ..networks._network import log_probabilities
from ..networks._onnx import TOLERANCE, FromPixels, export_bytes, open_session, require_onnx
from ..utils._typing import PathLike
from ..utils._validation import plain

# Batches of images that ONNX Runtime and PyTorch predict, to compare them.
_BATCHES = (1, 2, 5)


class _Probabilities(nn.Module):
    """From pixels to probabilities, averaged over each image and its mirror image where asked."""

    def __init__(self, network, mirrored):
        super().__init__()
        self.logits = FromPixels(network)
        self.mirrored = mirrored

    def forward(self, images):
        if not self.mirrored:
            return log_probabilities(self.logits(images)).exp()
        both = torch.cat([images, images.flip(-1)])
        probabilities = log_probabilities(self.logits(both)).exp()
        return probabilities.reshape(2, -1, probabilities.shape[1]).mean(dim=0)


def to_onnx(clf: MuraClassifier, path: PathLike, *, overwrite: bool = False) -> None:
    """Write a fitted classifier as an ONNX file, from pixels to probabilities.

    Normalisation, softmax and, with ``tta=True``, the mean over mirror images are part of the model
    [1]_. Before the file takes its name, ONNX Runtime predicts with it: the probabilities have to be
    those of ``predict_proba`` to 1e-5.

    Parameters
    ----------
    clf : MuraClassifier
        Fitted.
    path : str or os.PathLike
        The file to write.
    overwrite : bool, default=False
        Whether to take the place of a file.

    Raises
    ------
    TypeError
        For another estimator.
    sklearn.exceptions.NotFittedError
        For a classifier that is not fitted.
    ImportError
        Without the packages of ``pip install 'murakit[onnx]'``.
    RuntimeError
        Where ONNX Runtime's probabilities are not PyTorch's; no file is left.
    FileExistsError
        Where the file is there already and `overwrite` is False.

    See Also
    --------
    save_model : A model for murakit.
    read_square : Makes the input of a file.

    Notes
    -----
    The input ``images`` has the shape (n, 1, s, s) and the type uint8, with any n: grey images in
    the square that `read_square` makes, s being ``image_size``. That is not part of the model,
    because Pillow's smoothing resize and that of ONNX differ by more than 1e-5. Without murakit:
    convert the image to grey, scale it with Pillow's ``BILINEAR`` until its longer side is s
    (``resize="squash"``: both sides), and centre it on black.

    The output ``probabilities`` has the shape (n, n_classes). A study's probability is the mean over
    its images. The file's metadata (``metadata_props``) name the classes (as JSON), ``image_size``,
    ``resize``, ``decision_threshold`` (on the probability of ``pos_label``; empty: the most probable class),
    ``backbone`` and ``tta``.

    References
    ----------
    .. [1] https://onnx.ai

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import onnxruntime
    >>> from murakit import MuraClassifier, load_mura, make_mura, read_square, to_onnx
    >>> folder = tempfile.mkdtemp()
    >>> mura = load_mura(make_mura(folder + "/mura", n_patients=12, image_size=64, random_state=0))
    >>> clf = MuraClassifier(weights=None, image_size=32, max_epochs=1, unfreeze="head", random_state=0)
    >>> to_onnx(clf.fit(mura.data, mura.target), folder + "/model.onnx")
    >>> session = onnxruntime.InferenceSession(folder + "/model.onnx")
    >>> images = np.stack([read_square(path, 32) for path in mura.data])[:, None]
    >>> (proba,) = session.run(["probabilities"], {"images": images})
    >>> bool(np.allclose(proba, clf.predict_proba(mura.data), atol=1e-5))
    True
    """
    if not isinstance(clf, MuraClassifier):
        raise TypeError(
            f"to_onnx writes a MuraClassifier, not a {type(clf).__name__}: pass the one inside of it."
        )
    check_is_fitted(clf)
    require_onnx("to_onnx", "")
    network = clf._net.module_
    drop_if_changed(network)
    with written_whole(os.path.expanduser(os.fspath(path)), overwrite=overwrite) as unfinished:
        module = _Probabilities(network, clf.tta)
        model = _with_metadata(export_bytes(module, clf._side(), "probabilities"), clf)
        _check(clf, model)
        with open(unfinished, "wb") as file:
            file.write(model)


def _with_metadata(model, clf):
    import onnx

    model = onnx.load_model_from_string(model)
    threshold = clf.decision_threshold
    onnx.helper.set_model_props(
        model,
        {
            "backbone": clf._net.module_.name,
            "classes": json.dumps([plain(label) for label in clf.classes_]),
            "decision_threshold": "" if threshold is None else repr(float(threshold)),
            "image_size": str(int(clf._side())),
            "pos_label": json.dumps(clf.pos_label_),
            "resize": clf.resize,
            "tta": json.dumps(bool(clf.tta)),
        },
    )
    return model.SerializeToString()


def _check(clf, model):
    """Raise where ONNX Runtime predicts other probabilities than a classifier does on the CPU."""
    # In full precision, whatever this classifier predicts with here.
    clf = copy.copy(clf).set_params(device="cpu", precision="float32", runtime="torch", cache=None)
    images = _synthetic(max(_BATCHES), clf._side())
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, f"{at}.png") for at in range(len(images))]
        for path, pixels in zip(paths, images):
            Image.fromarray(pixels).save(path)
        expected = clf.predict_proba(paths)
    session = open_session(model)
    for n_images in _BATCHES:
        found = session.run(None, {"images": images[:n_images, None]})[0]
        difference = float(np.abs(found - expected[:n_images]).max())
        if not difference <= TOLERANCE:
            raise RuntimeError(
                f"The ONNX model's probabilities of {n_images} images differ from PyTorch's by {difference:.1e} (more "
                f"than {TOLERANCE:g}), so no file was written. Please report the backbone and the versions of "
                "torch, onnx and onnxruntime."
            )


def _synthetic(n_images, size):
    """Return images of slopes and noise, from dark to bright."""
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 1, size)
    images = np.empty((n_images, size, size), np.uint8)
    for at, (right, down, noise) in enumerate(rng.uniform(0, 1, (n_images, 3))):
        image = right * slope + down * slope[:, None] + noise * rng.uniform(0, 1, (size, size))
        images[at] = np.round(image * 255 / image.max() * (at + 1) / n_images)
    return images
