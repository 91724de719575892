"""Progress that behaves in a terminal, in a notebook and in a log file."""

import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from tqdm.auto import tqdm


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    # Not the package alone, which whoever starts or reads notebooks imports as well.
    return "ipykernel.kernelapp" in sys.modules


def is_interactive(stream: TextIO | None = None) -> bool:
    """Return whether a bar that redraws itself would be seen as one."""
    stream = sys.stderr if stream is None else stream
    return in_notebook() or bool(getattr(stream, "isatty", lambda: False)())


def progress_bar(
    iterable: Iterable[Any] | None = None,
    *,
    total: int,
    desc: str,
    unit: str,
    disable: bool = False,
    leave: bool = False,
) -> tqdm:
    """Return a tqdm bar, which is shown in a terminal or notebook and nowhere else."""
    return tqdm(
        iterable, total=total, desc=desc, unit=unit, leave=leave, disable=disable or not is_interactive()
    )


def say(text: str) -> None:
    """Print a line, above a bar that may be on the screen."""
    tqdm.write(text, file=sys.stdout)


class EpochProgress:
    """A bar over the epochs, or one line an epoch where no bar can be shown, such as in a log file.

    Parameters
    ----------
    total : int
        Number of epochs.
    desc : str
        What is trained.
    disable : bool
        Say nothing.
    """

    def __init__(self, total: int, desc: str, disable: bool) -> None:
        self.desc = desc
        self.lines = not disable and not is_interactive()
        # A notebook is read again later, and then shows how the training ended.
        self.bar = progress_bar(total=total, desc=desc, unit="epoch", disable=disable, leave=in_notebook())

    def update(self, row: Mapping[str, Any]) -> None:
        """Show the last row of a history: losses, scores and the learning rate."""
        shown = {
            key: f"{value:.4g}"
            for key, value in row.items()
            if isinstance(value, float) and (key == "lr" or key.endswith("_loss") or key.startswith("valid_"))
        }
        if self.lines:
            figures = "  ".join(f"{key} {value}" for key, value in shown.items())
            print(f"{self.desc}: epoch {row['epoch']}  {figures}  ({row['dur']:.1f} s)", flush=True)
        else:
            self.bar.set_postfix(shown)
            self.bar.update()

    def close(self) -> None:
        self.bar.close()
