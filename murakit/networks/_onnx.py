"""Predicting with ONNX Runtime on the CPU, where its numbers are PyTorch's."""

import copy
import io
import warnings

import torch
from torch import nn

from ._frozen import fold, sessions
from ._fuse import first_conv
from ._network import FromGrey, log_probabilities

# Largest difference in a probability that is taken for the same prediction.
TOLERANCE = 1e-5


class FromPixels(nn.Module):
    """A network as ONNX takes it: from (b, 1, s, s) uint8 to logits.

    Where it begins with a convolution of three channels, that becomes one of two: the grey values, and
    ones, which carry what the normalisation adds. Both are padded with zeros, so the borders come right.
    """

    def __init__(self, network):
        super().__init__()
        first, *others = network.stages
        entry = copy.deepcopy(fold(network, first)).to(memory_format=torch.contiguous_format)
        self.two_channels = (name := first_conv(entry)) is not None
        if self.two_channels:
            entry.set_submodule(name, _on_grey_and_ones(entry.get_submodule(name), network.mean, network.std))
            self.rest = nn.Sequential(
                entry, *(network.stages[other] for other in others), network.pool, network.head
            )
        else:
            self.rest = FromGrey(network)

    def forward(self, images):
        grey = images.to(torch.float32)
        return self.rest(torch.cat([grey, torch.ones_like(grey)], dim=1) if self.two_channels else grey / 255)


def _on_grey_and_ones(conv, mean, std):
    scaled = conv.weight.detach() / std.cpu().view(1, 3, 1, 1)
    ones = -(scaled * mean.cpu().view(1, 3, 1, 1)).sum(dim=1)
    made = nn.Conv2d(
        2,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        bias=conv.bias is not None,
    )
    made.weight = nn.Parameter(torch.stack([scaled.sum(dim=1) / 255, ones], dim=1))
    if conv.bias is not None:
        made.bias = conv.bias
    return made


def require_onnx(asked="runtime='onnx'", remedy=", or set runtime='torch'"):
    """Return onnxruntime; raise where a package is missing, with what asked for it and what else to do."""
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise ImportError(f"{asked} needs {error.name}: pip install 'murakit[onnx]'{remedy}.") from error
    del onnx, onnxscript  # what PyTorch's exporter works with
    return onnxruntime


def onnx_logits(network, images):
    """Return the logits of a batch by ONNX Runtime, or None where it cannot be used.

    The first batch of a network is computed by PyTorch as well; where the two differ, PyTorch's
    numbers are taken from then on.

    Parameters
    ----------
    network : Radiograph
        In evaluation, on the CPU.
    images : Tensor of shape (b, 1, s, s), dtype uint8

    Returns
    -------
    logits : Tensor of shape (b, k), dtype float32, or None
    """
    known = sessions(network)
    key = "onnx", images.shape[-1]
    if key not in known:
        known[key] = _checked(network, images)
    session = known[key]
    if session is None:
        return None
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _checked(network, images):
    session = open_session(export_bytes(FromPixels(network), images.shape[-1], "logits"))
    theirs = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    theirs, ours = (log_probabilities(logits).exp() for logits in (theirs, network.infer(images)))
    difference = float((theirs - ours).abs().max())
    if difference <= TOLERANCE:
        return session
    warnings.warn(
        f"runtime='onnx': its probabilities differ from PyTorch's by {difference:.1e} (more than {TOLERANCE:g}), so "
        "PyTorch predicts. Please report the backbone and the versions of both.",
        stacklevel=2,
    )
    return None


def open_session(model):
    """Return ONNX Runtime's session of a model's bytes, on the CPU."""
    onnxruntime = require_onnx()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait without sleeping would take the cores from those that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def export_bytes(module, image_size, output):
    """Return a module as an ONNX model, with a free number of images.

    Parameters
    ----------
    module : Module
        From (b, 1, s, s) uint8, which are called ``images``.
    image_size : int
    output : str
        What its output is called.
    """
    example = torch.zeros(2, 1, image_size, image_size, dtype=torch.uint8)
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        # The exporter speaks of its own innards.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            (example,),
            input_names=["images"],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("images", min=1, max=4096)},),
            dynamo=True,
            verbose=False,
        )
        buffer = io.BytesIO()
        program.save(buffer)
    return buffer.getvalue()
