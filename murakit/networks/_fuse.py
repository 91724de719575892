"""Stages with their BatchNorms fused into convolutions, for evaluation."""

import copy
import threading

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.utils import fuse_conv_bn_eval

from ..utils._threading import Lock

# Tracing replaces torch.nn.Module.__call__ for all threads; two at once would not put it back.
_tracing = Lock()


class _Tracer(fx.Tracer):
    """A tracer that lets other threads run their modules meanwhile."""

    def __init__(self):
        super().__init__()
        self.thread = threading.get_ident()

    def call_module(self, m, forward, args, kwargs):
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


def _fold(stage):
    # A copy: what is not folded must not share memory with a stage that is trained later.
    stage = copy.deepcopy(stage).eval().requires_grad_(False)
    try:
        with _tracing:
            tracer = _Tracer()
            graph = tracer.trace(stage)
        traced = fx.GraphModule(tracer.root, graph)
    except Exception:
        # Control flow that depends on the data: such a stage runs unfolded.
        return _laid_out(stage)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if node.op != "call_module" or type(modules[node.target]) is not nn.BatchNorm2d:
            continue
        before = node.args[0]
        if before.op != "call_module" or type(modules[before.target]) is not nn.Conv2d:
            continue
        # A convolution that something else reads as well, or that runs twice, keeps its own output.
        uses = sum(
            other.op == "call_module" and other.target == before.target for other in traced.graph.nodes
        )
        if len(before.users) > 1 or uses > 1:
            continue
        traced.set_submodule(before.target, fuse_conv_bn_eval(modules[before.target], modules[node.target]))
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return _laid_out(traced)


def _laid_out(stage):
    # Not by Module.to, which fails on tensors of five dimensions.
    for tensor in (*stage.parameters(), *stage.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return stage


class _GreyConv(nn.Module):
    """The first convolution of a network, stride 2, on grey values.

    Three equal channels, each normalised, are one channel under the sum of the three kernels, plus
    what the normalisation adds; at the borders, which are padded with zeros after it, that is another
    value, hence a map. Neighbouring pixels become channels, as kernels are fast on several channels.

    Parameters
    ----------
    conv : Conv2d
    mean, std : Tensor of shape (3,)
    """

    def __init__(self, conv, mean, std):
        super().__init__()
        self.conv = conv
        self.side, self.padding = conv.kernel_size[0], conv.padding[0]
        kernel = (conv.weight / std.view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
        kernel = functional.pixel_unshuffle(functional.pad(kernel, (1, 0, 1, 0)), 2)
        self.register_buffer("kernel", kernel.contiguous(memory_format=torch.channels_last))
        self.register_buffer("black", (-mean / std).view(1, 3, 1, 1))
        self.maps = {}

    def forward(self, x):
        height, width = x.shape[-2:]
        if (height, width) not in self.maps:
            black = self.black.expand(1, 3, height, width).contiguous(memory_format=torch.channels_last)
            # In full precision, whatever this call computes in: others share the map.
            with torch.inference_mode(False), torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                self.maps[height, width] = self.conv(black)
        added = self.maps[height, width]
        before = self.padding + 1
        down, right = (
            2 * n_out + self.side - 1 - n_in - before
            for n_out, n_in in zip(added.shape[-2:], (height, width))
        )
        x = functional.pixel_unshuffle(functional.pad(x, (before, right, before, down)), 2)
        x = functional.conv2d(x.contiguous(memory_format=torch.channels_last), self.kernel)
        return x.add_(added)


def first_conv(stage):
    """Return the name of the convolution that a folded stage begins with, where nothing else reads its input."""
    if not isinstance(stage, fx.GraphModule):
        return None
    entry = next(node for node in stage.graph.nodes if node.op == "placeholder")
    users = list(entry.users)
    if len(users) != 1 or users[0].op != "call_module":
        return None
    conv = stage.get_submodule(users[0].target)
    fits = (
        isinstance(conv, nn.Conv2d)
        and conv.in_channels == 3
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )
    return users[0].target if fits else None


def _take_grey(stage, mean, std):
    name = first_conv(stage)
    conv = None if name is None else stage.get_submodule(name)
    fits = (
        conv is not None
        and conv.kernel_size[0] == conv.kernel_size[1]
        and conv.kernel_size[0] % 2 == 1
        and conv.stride == (2, 2)
        and conv.dilation == (1, 1)
        and conv.padding in [(n, n) for n in range(conv.kernel_size[0])]
    )
    if not fits:
        return None
    stage.set_submodule(name, _GreyConv(conv, mean.cpu(), std.cpu()))
    return stage
