"""Prediction with ONNX Runtime on the CPU, if its probabilities equal PyTorch's."""

import copy
import io
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ._frozen import fused_stage, session_cache
from ._fuse import first_conv
from ._network import FromGrey, Radiograph, log_probabilities

if TYPE_CHECKING:
    import onnxruntime

# Largest absolute difference between probabilities that count as equal.
TOLERANCE = 1e-5


class FromPixels(nn.Module):
    """Form of a network for export to ONNX: from (b, 1, s, s) uint8 to logits.

    A first convolution of three channels becomes one of two channels: the grey values, and ones. The
    weights of the ones are what subtracting the mean contributes. Both channels are padded with zeros,
    as the normalised image is, so the output is also right at the borders.
    """

    def __init__(self, network: Radiograph) -> None:
        super().__init__()
        first, *others = network.stages
        stage = copy.deepcopy(fused_stage(network, first)).to(memory_format=torch.contiguous_format)
        self.rest: nn.Module
        name = first_conv(stage)
        self.two_channels = name is not None
        if name is not None:
            stage.set_submodule(name, _two_channel_conv(stage.get_submodule(name), network.mean, network.std))
            self.rest = nn.Sequential(
                stage, *(network.stages[other] for other in others), network.pool, network.head
            )
        else:
            self.rest = FromGrey(network)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grey = images.to(torch.float32)
        return self.rest(torch.cat([grey, torch.ones_like(grey)], dim=1) if self.two_channels else grey / 255)


def _two_channel_conv(conv, mean, std):
    scaled = conv.weight.detach() / std.cpu().view(1, 3, 1, 1)
    ones = -(scaled * mean.cpu().view(1, 3, 1, 1)).sum(dim=1)
    merged = nn.Conv2d(
        2,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        bias=conv.bias is not None,
    )
    merged.weight = nn.Parameter(torch.stack([scaled.sum(dim=1) / 255, ones], dim=1))
    if conv.bias is not None:
        merged.bias = conv.bias
    return merged


def require_onnx(needed_by: str = "runtime='onnx'", remedy: str = ", or set runtime='torch'") -> Any:
    """Return the module onnxruntime; raise ImportError where it, onnx or onnxscript is missing.

    Parameters
    ----------
    needed_by, remedy : str
        Begin and end of the error's message: what needs the package, and what to do instead of
        installing it.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise ImportError(f"{needed_by} needs {error.name}: pip install 'murakit[onnx]'{remedy}.") from error
    del onnx, onnxscript  # PyTorch's exporter needs them
    return onnxruntime


def onnx_logits(network: Radiograph, images: torch.Tensor) -> torch.Tensor | None:
    """Return the logits of a batch, computed by ONNX Runtime; None where PyTorch has to compute them.

    PyTorch computes the first batch of a network as well. Where their probabilities differ by more than
    `TOLERANCE`, this function warns, and returns None for that batch and all later ones.

    Parameters
    ----------
    network : Radiograph
        In evaluation, on the CPU.
    images : Tensor of shape (b, 1, s, s), dtype uint8

    Returns
    -------
    logits : Tensor of shape (b, k), dtype float32, or None
    """
    sessions = session_cache(network)
    key = "onnx", images.shape[-1]
    if key not in sessions:
        sessions[key] = _session_if_equal(network, images)
    session = sessions[key]
    if session is None:
        return None
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _session_if_equal(network: Radiograph, images: torch.Tensor) -> "onnxruntime.InferenceSession | None":
    """Return a session of the network, or None, with a warning, where it predicts something else."""
    session = open_session(export_bytes(FromPixels(network), images.shape[-1], "logits"))
    logits = torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), network.infer(images)
    by_onnx, by_torch = (log_probabilities(each).exp() for each in logits)
    difference = float((by_onnx - by_torch).abs().max())
    if difference <= TOLERANCE:
        return session
    warnings.warn(
        f"runtime='onnx': its probabilities differ from PyTorch's by {difference:.1e} (more than {TOLERANCE:g}), so "
        "PyTorch predicts. Please report the backbone and the versions of both.",
        stacklevel=2,
    )
    return None


def open_session(model: bytes) -> "onnxruntime.InferenceSession":
    """Return an inference session of ONNX Runtime on the CPU, of the bytes of an ONNX model."""
    onnxruntime = require_onnx()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Spinning threads would take the cores from the threads that decode images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def export_bytes(module: nn.Module, image_size: int, output: str) -> bytes:
    """Return the bytes of an ONNX model of a module, for batches of any size.

    Parameters
    ----------
    module : Module
        Takes images (b, 1, s, s) uint8. The model's input is named "images".
    image_size : int
        Side s of the images, in pixels; the model takes no other.
    output : str
        Name of the model's output.
    """
    example = torch.zeros(2, 1, image_size, image_size, dtype=torch.uint8)
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        # The exporter warns about its own internals.
        warnings.simplefilter("ignore")
        # Any: `save` is annotated for paths, but takes file objects too.
        program: Any = torch.onnx.export(
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
