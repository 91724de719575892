"""Layers around a backbone: pooling, dropout and the head."""

import torch
from torch import nn
from torch.nn import functional


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
