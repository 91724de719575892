"""The network: a PyTorch module from uint8 radiographs to logits, made of a backbone's stages."""

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Self

import torch
from torch import nn
from torch.nn import functional

from ._backbones import IMAGENET_MEAN, IMAGENET_STD
from ._frozen import fused_grey_stage, fused_stage, shape_cache, weights_hash
from ._pretrained import seeded
from .augmentation import Augmentation


class SeededDropout(nn.Module):
    """Dropout that draws from the network's own generator, not from PyTorch's global one."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(x.shape, generator=generator).to(x.device) >= self.p
        return x * kept / (1 - self.p)


class Pool(nn.Module):
    """Global average pooling; features that a stage has already pooled are returned unchanged."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.ndim == 2 else functional.adaptive_avg_pool2d(x, 1).flatten(1)


class SigmoidHead(nn.Linear):
    """Linear layer with one output, whose sigmoid is the probability of the second of two classes.

    It returns two logits, -z/2 and z/2 for the output z. Their softmax is the sigmoid of z, and their
    cross-entropy is the binary cross-entropy of z.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__(n_features, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        half = super().forward(features) / 2
        return torch.cat([-half, half], dim=1)


# Number of images that run through a frozen stage together on a CPU: so few that their activations stay in
# the processor's caches, and enough to keep its cores busy. A change of these three numbers changes the
# last bits of the activations, so it also needs a new ARITHMETIC.
MIN_CHUNK_SIZE, _MAX_CHUNK_SIZE = 8, 16

_CHUNK_BYTES = 10_000_000

# Smallest height and width of the feature maps that Inception's auxiliary classifier takes.
_MIN_AUXILIARY_SIDE = 17


class Radiograph(nn.Module):
    """Network from radiographs to logits: augment, normalise, frozen stages, trained stages, head.

    Parameters
    ----------
    stages : dict of str to Module
        The backbone's stages, in order.
    n_features : int
        Number of features after the last stage and the pooling.
    n_classes : int
        Number of logits.
    dropout : float
        Probability that a feature is set to zero before the last layer, while training.
    augmentation : Augmentation or None
        Applied to a batch of grey values in [0, 1], while training only.
    name : str
        The backbone's name.
    mean, std : tuple of three floats
        Statistics that the channels are normalised by.
    auxiliary : Module or None
        Auxiliary classifier, as in Inception; used while training only.
    auxiliary_after : str or None
        Name of the stage whose output the auxiliary classifier takes.
    one_output : bool
        Whether the head has one output for two classes, see `SigmoidHead`.

    Attributes
    ----------
    generator : torch.Generator or None
        Generator of the augmentation and of dropout; set during training only.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        n_features: int,
        n_classes: int,
        *,
        dropout: float = 0.0,
        augmentation: Augmentation | None = None,
        name: str = "",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        auxiliary: nn.Module | None = None,
        auxiliary_after: str | None = None,
        one_output: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.stages = nn.ModuleDict(stages)
        self.pool = Pool()
        self.dropout = SeededDropout(dropout)
        self.head = SigmoidHead(n_features) if one_output else nn.Linear(n_features, n_classes)
        self.auxiliary = auxiliary
        self.auxiliary_after = auxiliary_after
        self.augmentation = augmentation
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)
        # Whether a stage has dropout or stochastic depth, which draw from PyTorch's global generator.
        self.drops = any(re.search("drop|stochastic", type(m).__name__, re.I) for m in self.stages.modules())
        self.generator: torch.Generator | None = None
        self.frozen: frozenset[str] = frozenset()

    # -- frozen and trained stages ----------------------------------------------------------

    def freeze_below(self, unfreeze: str) -> Self:
        """Freeze the stages before ``unfreeze``: they get no gradient, and their BatchNorm statistics stay.

        Parameters
        ----------
        unfreeze : str
            The first stage to train, ``"head"`` for none of them, ``"all"`` for every one.
        """
        self.frozen = frozenset(self.stages_before(unfreeze))
        for name, stage in self.stages.items():
            stage.requires_grad_(name not in self.frozen)
        if self.auxiliary is not None:
            self.auxiliary.requires_grad_(self.auxiliary_after not in self.frozen)
        self.train(self.training)
        return self

    def stages_before(self, stage: str) -> list[str]:
        """Return the names of the stages before `stage`: all for ``"head"``, none for ``"all"``."""
        names = list(self.stages)
        if stage not in (*names, "head", "all"):
            raise ValueError(f"unfreeze={stage!r} is no stage: choose 'all', 'head' or one of {names}.")
        first = {"all": 0, "head": len(names)}.get(stage)
        return names[: names.index(stage) if first is None else first]

    def train(self, mode: bool = True) -> Self:
        self.training = self.stages.training = mode
        for part in set(self.children()) - {self.stages}:
            part.train(mode)
        for name, stage in self.stages.items():
            # A frozen stage stays in evaluation mode: else its BatchNorms would update their running
            # statistics. A stage that is in that mode already is left alone, because setting the mode of
            # all its modules takes longer than a training step of the head.
            if name not in self.frozen or stage.training:
                stage.train(mode and name not in self.frozen)
        return self

    def trained_state(self, unfreeze: str) -> dict[str, torch.Tensor]:
        """Return the state dict without the stages before ``unfreeze``, which training does not change."""
        frozen = tuple(f"stages.{name}." for name in self.stages_before(unfreeze))
        return {key: value for key, value in self.state_dict().items() if not key.startswith(frozen)}

    # -- frozen stages ----------------------------------------------------------------------

    def run_before(
        self,
        stage: str,
        inputs: torch.Tensor,
        *,
        begin: str | None = None,
        draws: torch.Tensor | None = None,
        exact: bool = True,
    ) -> torch.Tensor:
        """Run the stages before `stage` without gradient, with BatchNorms fused into convolutions.

        Frozen stages are always computed here. So their output is the same, to the last bit, whether it
        is read from a store or computed in a training step.

        Parameters
        ----------
        stage : str
            The first stage that is not run; with ``"head"``, the features are pooled.
        inputs : Tensor
            Radiographs (b, 1, s, s) uint8; or the output of the stages before `begin`.
        begin : str or None
            The first stage that is run. None: the first of all, on radiographs.
        draws : Tensor of shape (7, b) or None
            Random numbers of the augmentation, see `Augmentation.apply`; None: no augmentation.
        exact : bool
            Whether the output for an image on a CPU must be the same, to the last bit, in a batch of any
            size. False is faster for few images.

        Returns
        -------
        outputs : Tensor of shape (b, c, h, w) or (b, n_features)
        """
        done = self.stages_before(begin) if begin is not None else []
        names = self.stages_before(stage)[len(done) :]
        if len(inputs) == 1 and names:
            # For a batch of one, PyTorch picks other kernels, whose last bits differ.
            twice = None if draws is None else draws.expand(-1, 2)
            inputs = inputs.expand(2, *inputs.shape[1:])
            return self.run_before(stage, inputs, begin=begin, draws=twice, exact=exact)[:1]
        # Without this, autograd would store the activations of stages that need no gradient.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not names):
            x = self._to_float(inputs, begin, draws)
            stages = [fused_stage(self, name) for name in names]
            first = None
            if begin is None and names and x.device.type == "cpu":
                first = fused_grey_stage(self, names[0])
            if begin is None and first is None:
                # Channels last is the fastest format for convolutions; permute copies nothing.
                grey = x.permute(0, 2, 3, 1)
                x = torch.addcmul(-self.mean / self.std, grey, 1 / self.std).permute(0, 3, 1, 2)
            if names:
                x = _run_stages(x, stages if first is None else [first, *stages[1:]], exact)
            return self.pool(x) if stage == "head" else x

    def shape_before(self, stage: str, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the output shape of the stages before `stage`, for one image (1, s, s)."""
        # The shape is found by running the stages once.
        shapes = shape_cache(self, self.stages_before(stage))
        if (stage, image_shape) not in shapes:
            with torch.no_grad():
                pixels = torch.zeros(2, *image_shape, dtype=torch.uint8, device=self.mean.device)
                shapes[stage, image_shape] = tuple(self.run_before(stage, pixels).shape[1:])
        return shapes[stage, image_shape]

    def fingerprint(self, stage: str) -> str:
        """Return a hash of the weights of all stages before `stage`."""
        return weights_hash(self, self.stages_before(stage))

    # -- the whole network ------------------------------------------------------------------

    def _to_float(self, inputs: torch.Tensor, begin: str | None, draws: torch.Tensor | None) -> torch.Tensor:
        if begin is not None:
            return inputs.to(torch.float32)
        x = inputs.to(torch.float32) / 255
        if draws is None:
            return x
        assert self.augmentation is not None  # random numbers are only drawn for an augmentation
        return self.augmentation.apply(x, draws)

    def forward(
        self, inputs: torch.Tensor, begin: str | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return the logits (b, k) of a batch; while an auxiliary classifier is trained, also its logits.

        Parameters
        ----------
        inputs : Tensor of shape (b, 1, s, s), dtype uint8; or float
            Radiographs, or the output of the frozen stages before `begin`.
        begin : str or None
            The first stage that is run. None: the first of all, on radiographs.
        """
        if begin == "head":
            return self.head(self.dropout(self._to_float(inputs, begin, None), self.generator))
        draws = None
        if begin is None and self.training and self.augmentation is not None:
            draws = torch.rand(7, len(inputs), generator=self.generator)
        names = list(self.stages)
        done = len(self.stages_before(begin)) if begin is not None else 0
        first = max(done, len(self.frozen))
        stage = names[first] if first < len(names) else "head"
        x = self.run_before(stage, inputs, begin=begin, draws=draws)
        auxiliary = None
        with self._global_generator_seeded():
            for name in names[first:]:
                x = self.stages[name](x)
                if self.training and name == self.auxiliary_after and x.shape[-1] >= _MIN_AUXILIARY_SIDE:
                    assert self.auxiliary is not None  # comes with `auxiliary_after`
                    auxiliary = self.auxiliary(x)
        logits = self.head(self.dropout(self.pool(x), self.generator))
        return logits if auxiliary is None else (logits, auxiliary)

    def _global_generator_seeded(self) -> AbstractContextManager[None]:
        """Seed PyTorch's global generator for layers that draw from it; restore it on exit."""
        if not (self.training and self.drops and self.generator is not None):
            return nullcontext()
        seed = int(torch.randint(2**31, (), generator=self.generator))
        return seeded(seed, self.mean.device)

    def infer(self, inputs: torch.Tensor, begin: str | None = None, exact: bool = False) -> torch.Tensor:
        """Return the logits as `forward` does in evaluation mode, with every BatchNorm fused."""
        return self.head(self.run_before("head", inputs, begin=begin, exact=exact))


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities (b, k) of logits (b, k)."""
    return logits.log_softmax(dim=1)


class FromGrey(nn.Module):
    """Plain form of a network, nothing fused or cached: from grey values (b, 1, s, s) in [0, 1] to logits.

    For exporters, and for heat maps, which need gradients.

    Parameters
    ----------
    network : Radiograph
        Its weights are shared, not copied.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: Radiograph) -> None:
        super().__init__()
        self.stages = nn.Sequential(*network.stages.values())
        self.pool = network.pool
        self.head = network.head
        self.register_buffer("mean", network.mean.view(1, 3, 1, 1).clone())
        self.register_buffer("std", network.std.view(1, 3, 1, 1).clone())

    def forward(self, grey: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.stages((grey - self.mean) / self.std)))


def _run_stages(x: torch.Tensor, stages: list[nn.Module], exact: bool) -> torch.Tensor:
    """Run stages one after another; on a CPU, on a chunk of the batch at a time.

    The activations of a chunk stay in the processor's caches. PyTorch chooses kernels by the shape of
    their input, so an image in a chunk of another size would differ in the last bits. With `exact`,
    therefore, every chunk of a stage has the same size, which follows from the shape of the stage's input
    alone: not from the size of the batch, nor from the first stage that is run. The last chunk is padded
    with copies of its last image. Outputs are converted to float32 after each stage, because they are
    stored in that precision.
    """
    n_images = len(x)
    if x.device.type != "cpu" or (n_images < MIN_CHUNK_SIZE and not exact):
        for stage in stages:
            x = stage(x).float()
        return x
    while stages:
        size = _chunk_size(x)
        chunks = []
        for chunk in x.split(size):
            n_missing = size - len(chunk)
            if n_missing:
                # torch.cat may return another memory format, with which the last bits differ.
                chunk = chunk[[*range(len(chunk)), *[-1] * n_missing]]
            n_done = 0
            while n_done < len(stages) and _chunk_size(chunk) == size:
                chunk = stages[n_done](chunk).float()
                n_done += 1
            chunks.append(chunk)
        x = (chunks[0] if len(chunks) == 1 else torch.cat(chunks))[:n_images]
        stages = stages[n_done:]
    return x


def _chunk_size(x: torch.Tensor) -> int:
    """Return the number of images that run together through a stage whose input is `x`."""
    # An image of one channel counts as four: the first stage makes larger activations of it.
    shape = x.shape[1:]
    n_bytes = max(shape.numel(), 4 * shape[-2:].numel()) * 4
    return _MAX_CHUNK_SIZE if n_bytes * _MAX_CHUNK_SIZE <= _CHUNK_BYTES else MIN_CHUNK_SIZE
