"""Random augmentation of a whole batch of radiographs, on the batch's device."""

import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

__all__ = ["Augmentation"]

_STRENGTHS = ("flip", "rotation", "scale", "shift", "brightness", "contrast")


class Augmentation(nn.Module):
    """Random flip, rotation, scale, shift, brightness and contrast, drawn for each image.

    The geometric changes are one affine transformation, so that an image is interpolated only once.

    Parameters
    ----------
    flip : float, default=0.5
        Probability of a horizontal flip (lateral inversion).
    rotation : float, default=15.0
        Largest rotation in either direction, in degrees.
    scale : float, default=0.1
        Largest relative change of size.
    shift : float, default=0.05
        Largest shift along each axis, as a fraction of the side.
    brightness : float, default=0.1
        Largest change of brightness, as a fraction of the full range.
    contrast : float, default=0.1
        Largest relative change of contrast around the image's mean.

    References
    ----------
    Rajpurkar et al., "MURA: Large Dataset for Abnormality Detection in Musculoskeletal
    Radiographs", arXiv 1712.06957 (2017): lateral inversions and rotations up to 30 degrees.

    Examples
    --------
    >>> import torch
    >>> from murakit.augmentation import Augmentation
    >>> images = torch.rand(4, 1, 32, 32)
    >>> Augmentation(rotation=30)(images, torch.Generator().manual_seed(0)).shape
    torch.Size([4, 1, 32, 32])
    """

    def __init__(
        self,
        flip: float = 0.5,
        rotation: float = 15.0,
        scale: float = 0.1,
        shift: float = 0.05,
        brightness: float = 0.1,
        contrast: float = 0.1,
    ) -> None:
        super().__init__()
        self.flip = flip
        self.rotation = rotation
        self.scale = scale
        self.shift = shift
        self.brightness = brightness
        self.contrast = contrast

    def forward(self, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return an augmented copy of a batch.

        Parameters
        ----------
        images : Tensor of shape (b, 1, s, s), dtype float32
            Grey values from 0 to 1.
        generator : torch.Generator or None
            Generator on the CPU: with one seed, the changes are the same on every device.

        Returns
        -------
        images : Tensor of shape (b, 1, s, s), dtype float32
        """
        return self.apply(images, torch.rand(7, len(images), generator=generator))

    # Takes the place of nn.Module.apply, which calls a function on submodules: there are none.
    def apply(self, images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Return an augmented copy of a batch, with random numbers that were drawn before.

        Parameters
        ----------
        images : Tensor of shape (b, 1, s, s), dtype float32
            Grey values from 0 to 1.
        draws : Tensor of shape (7, b), dtype float32
            Random numbers from 0 to 1, on the CPU: one column per image.

        Returns
        -------
        images : Tensor of shape (b, 1, s, s), dtype float32
        """
        theta = self._affine(draws).to(images.device, non_blocking=True)
        grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
        images = functional.grid_sample(images, grid, align_corners=False)
        tone = (2 * draws[5:] - 1).to(images.device, non_blocking=True)[:, :, None, None, None]
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        contrasted = (images - mean) * (1 + self.contrast * tone[0]) + mean
        return (contrasted + self.brightness * tone[1]).clamp(0, 1)

    @staticmethod
    def fixed_draws(images: NDArray[np.uint8], view: int) -> torch.Tensor:
        """Return the random numbers of a fixed view of each image.

        They depend on the image's pixels and on `view` alone, so the view is the same in every process.

        Parameters
        ----------
        images : ndarray of shape (b, 1, s, s), dtype uint8
        view : int
            Number of the view, from 0.

        Returns
        -------
        draws : Tensor of shape (7, b), dtype float32
        """
        seeds = [zlib.crc32(np.ascontiguousarray(image).data) for image in images]
        draws = [np.random.default_rng([view, seed]).random(7, dtype=np.float32) for seed in seeds]
        return torch.from_numpy(np.stack(draws, axis=1))

    def __repr__(self) -> str:
        return f"Augmentation({', '.join(f'{name}={getattr(self, name)!r}' for name in _STRENGTHS)})"

    def _affine(self, draws):
        flipped = torch.where(draws[0] < self.flip, -1.0, 1.0)
        signed = 2 * draws[1:5] - 1
        angle = signed[0] * (self.rotation * torch.pi / 180)
        # affine_grid maps output to input coordinates: a factor above 1 makes the image smaller.
        factor = 1 + self.scale * signed[1]
        cos, sin = factor * angle.cos(), factor * angle.sin()
        # Coordinates run from -1 to 1: the side is 2 long.
        right, down = 2 * self.shift * signed[2], 2 * self.shift * signed[3]
        rows = [cos * flipped, -sin, right, sin * flipped, cos, down]
        return torch.stack(rows, dim=1).reshape(-1, 2, 3)
