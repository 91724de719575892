"""The network that turns uint8 radiographs into logits, and how it is built from a backbone."""

import re
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional

from ._backbones import IMAGENET_MEAN, IMAGENET_STD
from ._frozen import fold, fold_entry, shapes, weights_hash
from ._pretrained import seeded


class SeededDropout(nn.Module):
    """Dropout that draws from the network's own generator, not from the global one."""

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x, generator=None):
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(x.shape, generator=generator).to(x.device) >= self.p
        return x * kept / (1 - self.p)


class Pool(nn.Module):
    """The mean of each feature map; features that a stage has pooled already stay as they are."""

    def forward(self, x):
        return x if x.ndim == 2 else functional.adaptive_avg_pool2d(x, 1).flatten(1)


class SigmoidHead(nn.Linear):
    """One output, whose sigmoid is the probability of the second of two classes.

    It is handed on as two logits, half of it with either sign: their softmax is that sigmoid, and their
    cross-entropy the binary cross-entropy of the one output.
    """

    def __init__(self, n_features):
        super().__init__(n_features, 1)

    def forward(self, features):
        half = super().forward(features) / 2
        return torch.cat([-half, half], dim=1)


# Images that go through a frozen stage on a CPU together: as many as leave their maps in its caches, and
# enough of them to keep the kernels busy. Changes of these change last bits: see ARITHMETIC.
LEAST_PORTION, _MOST_PORTION = 8, 16

_PORTION_BYTES = 10_000_000

# Feature maps along a side that the auxiliary classifier of Inception needs.
_AUXILIARY_SIDE = 17


class Radiograph(nn.Module):
    """The network: augment, normalise, frozen stages, trained stages, head.

    Parameters
    ----------
    stages : dict of str to Module
        The backbone's stages, in order.
    n_features : int
        Number of features after the last stage and the pooling.
    n_classes : int
        Number of logits.
    dropout : float
        Share of the features that are dropped before the last layer while training.
    augmentation : Module or None
        Called with a batch in [0, 1] and a generator, while training only.
    name : str
        The backbone's name.
    mean, std : tuple of three floats
        What the channels are normalised by.
    auxiliary : Module or None
        A second classifier, of the output of the stage `auxiliary_after`, for training only.
    auxiliary_after : str or None
    one_output : bool
        Whether the head has one output for two classes, instead of two.

    Attributes
    ----------
    generator : torch.Generator or None
        Where augmentation and dropout draw from; set for the time of a training.
    """

    def __init__(
        self,
        stages,
        n_features,
        n_classes,
        *,
        dropout=0.0,
        augmentation=None,
        name="",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        auxiliary=None,
        auxiliary_after=None,
        one_output=False,
    ):
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
        # Layers that drop paths at random ask PyTorch's global generator.
        self.drops = any(re.search("drop|stochastic", type(m).__name__, re.I) for m in self.stages.modules())
        self.generator = None
        self.frozen = frozenset()

    # -- what is trained --------------------------------------------------------------------

    def freeze_below(self, unfreeze):
        """Freeze every stage before ``unfreeze``: no gradient, BatchNorm statistics kept.

        Parameters
        ----------
        unfreeze : str
            The first stage to train, ``"head"`` for none of them, ``"all"`` for every one.
        """
        self.frozen = frozenset(self.before(unfreeze))
        for name, stage in self.stages.items():
            stage.requires_grad_(name not in self.frozen)
        if self.auxiliary is not None:
            self.auxiliary.requires_grad_(self.auxiliary_after not in self.frozen)
        self.train(self.training)
        return self

    def before(self, stage):
        """Return the names of the stages before one, all of them for ``"head"``, none for ``"all"``."""
        names = list(self.stages)
        if stage not in (*names, "head", "all"):
            raise ValueError(f"unfreeze={stage!r} is no stage: choose 'all', 'head' or one of {names}.")
        first = {"all": 0, "head": len(names)}.get(stage)
        return names[: names.index(stage) if first is None else first]

    def train(self, mode=True):
        self.training = self.stages.training = mode
        for part in set(self.children()) - {self.stages}:
            part.train(mode)
        for name, stage in self.stages.items():
            # A frozen BatchNorm would go on moving its running statistics. Once frozen, a stage stays so: to
            # walk through it again would take longer than a step of the head.
            if name not in self.frozen or stage.training:
                stage.train(mode and name not in self.frozen)
        return self

    def trained_state(self, unfreeze):
        """Return the entries of the state dict that a training from ``unfreeze`` on can change."""
        frozen = tuple(f"stages.{name}." for name in self.before(unfreeze))
        return {key: value for key, value in self.state_dict().items() if not key.startswith(frozen)}

    # -- stages that do not change ----------------------------------------------------------

    def run_before(self, stage, inputs, *, begin=None, draws=None, exact=True):
        """Run the stages before one, as they are: no gradient, BatchNorms folded into convolutions.

        The one way in which frozen stages are computed, so that the result is the same, to the last
        bit, whether it is stored or computed in the step that needs it.

        Parameters
        ----------
        stage : str
            The first stage that is not run; with ``"head"``, the features are pooled.
        inputs : Tensor
            Radiographs (b, 1, s, s) uint8; or what the stages before `begin` made of them.
        begin : str or None
            The first stage that is run, where `inputs` are no radiographs.
        draws : Tensor of shape (7, b) or None
            Numbers for the augmentation, see `Augmentation.apply`.
        exact : bool
            Whether the result of an image on a CPU must not depend on how many are given with it.

        Returns
        -------
        outputs : Tensor of shape (b, c, h, w) or (b, n_features)
        """
        done = self.before(begin) if begin is not None else []
        names = self.before(stage)[len(done) :]
        if len(inputs) == 1 and names:
            # Alone, an image takes another path through the kernels and differs in the last bits.
            twice = None if draws is None else draws.expand(-1, 2)
            inputs = inputs.expand(2, *inputs.shape[1:])
            return self.run_before(stage, inputs, begin=begin, draws=twice, exact=exact)[:1]
        # Without this, autograd would keep the activations of stages that get no gradient.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not names):
            x = self._enter(inputs, begin, draws)
            stages = [fold(self, name) for name in names]
            entry = fold_entry(self, names[0]) if begin is None and names and x.device.type == "cpu" else None
            if begin is None and entry is None:
                # Channels last, which convolutions are fastest with; the permutations copy nothing.
                grey = x.permute(0, 2, 3, 1)
                x = torch.addcmul(-self.mean / self.std, grey, 1 / self.std).permute(0, 3, 1, 2)
            if names:
                x = _run(x, stages if entry is None else [entry, *stages[1:]], exact)
            return self.pool(x) if stage == "head" else x

    def shape_before(self, stage, image_shape):
        """Return the shape of what the stages before one make of an image (1, s, s), without a batch."""
        # Only running the network tells; the answer is kept beside its folded stages.
        known = shapes(self, self.before(stage))
        if (stage, image_shape) not in known:
            with torch.no_grad():
                pixels = torch.zeros(2, *image_shape, dtype=torch.uint8, device=self.mean.device)
                known[stage, image_shape] = tuple(self.run_before(stage, pixels).shape[1:])
        return known[stage, image_shape]

    def fingerprint(self, stage):
        """Return a text that stands for the weights of all stages before one."""
        return weights_hash(self, self.before(stage))

    # -- all of it --------------------------------------------------------------------------

    def _enter(self, inputs, begin, draws):
        if begin is not None:
            return inputs.to(torch.float32)
        x = inputs.to(torch.float32) / 255
        return x if draws is None else self.augmentation.apply(x, draws)

    def forward(self, inputs, begin=None):
        """Return the logits (b, k) of a batch; while an auxiliary classifier learns, its logits as well.

        Parameters
        ----------
        inputs : Tensor of shape (b, 1, s, s), dtype uint8; or float
            Radiographs, or what the frozen stages before `begin` made of them.
        begin : str or None
            The first stage that is run, where `inputs` are no radiographs.
        """
        if begin == "head":
            return self.head(self.dropout(self._enter(inputs, begin, None), self.generator))
        draws = None
        if begin is None and self.training and self.augmentation is not None:
            draws = torch.rand(7, len(inputs), generator=self.generator)
        names = list(self.stages)
        done = len(self.before(begin)) if begin is not None else 0
        first = max(done, len(self.frozen))
        stage = names[first] if first < len(names) else "head"
        x = self.run_before(stage, inputs, begin=begin, draws=draws)
        auxiliary = None
        with self._own_randomness():
            for name in names[first:]:
                x = self.stages[name](x)
                if self.training and name == self.auxiliary_after and x.shape[-1] >= _AUXILIARY_SIDE:
                    auxiliary = self.auxiliary(x)
        logits = self.head(self.dropout(self.pool(x), self.generator))
        return logits if auxiliary is None else (logits, auxiliary)

    def _own_randomness(self):
        if not (self.training and self.drops and self.generator is not None):
            return nullcontext()
        seed = int(torch.randint(2**31, (), generator=self.generator))
        return seeded(seed, self.mean.device)

    def infer(self, inputs, begin=None, exact=False):
        """Return the logits as `forward` does in evaluation, with every BatchNorm folded."""
        return self.head(self.run_before("head", inputs, begin=begin, exact=exact))


def log_probabilities(logits):
    """Return the logarithms of the probabilities (b, n_classes) that logits (b, k) stand for."""
    return logits.log_softmax(dim=1)


class FromGrey(nn.Module):
    """A network as it is, nothing folded or stored: from grey values (b, 1, s, s) in [0, 1] to logits.

    For those who take a module apart: exporters, and explanations that follow gradients.

    Parameters
    ----------
    network : Radiograph
        Its weights are shared, not copied.
    """

    def __init__(self, network):
        super().__init__()
        self.stages = nn.Sequential(*network.stages.values())
        self.pool = network.pool
        self.head = network.head
        self.register_buffer("mean", network.mean.view(1, 3, 1, 1).clone())
        self.register_buffer("std", network.std.view(1, 3, 1, 1).clone())

    def forward(self, grey):
        return self.head(self.pool(self.stages((grey - self.mean) / self.std)))


def _run(x, stages, exact):
    """Run stages in turn; on the CPU, on a few images at a time, and with `exact` on so many always.

    What is made on the way then stays in the processor's caches. And as kernels are chosen by the shape
    of their input, images in portions of another size would differ in the last bits. So the size of a
    portion follows from the stage's input alone, not from the batch, nor from where the run began, and
    half precision is left between stages, as it is by what is stored.
    """
    n_images = len(x)
    if x.device.type != "cpu" or (n_images < LEAST_PORTION and not exact):
        for stage in stages:
            x = stage(x).float()
        return x
    while stages:
        size = _portion(x)
        parts = []
        for part in x.split(size):
            lacking = size - len(part)
            if lacking:
                # Not by torch.cat, which may end in another memory layout, and that in other last bits.
                part = part[[*range(len(part)), *[-1] * lacking]]
            n_done = 0
            while n_done < len(stages) and _portion(part) == size:
                part = stages[n_done](part).float()
                n_done += 1
            parts.append(part)
        x = (parts[0] if len(parts) == 1 else torch.cat(parts))[:n_images]
        stages = stages[n_done:]
    return x


def _portion(x):
    """Return how many images go through a stage together whose input is `x`."""
    # Grey values are few, but the maps that the first stage makes of them are not.
    shape = x.shape[1:]
    n_bytes = max(shape.numel(), 4 * shape[-2:].numel()) * 4
    return _MOST_PORTION if n_bytes * _MOST_PORTION <= _PORTION_BYTES else LEAST_PORTION
