"""Times of functions that are run in turns, so that all of them see the same state of the machine."""

import gc
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timing:
    """The seconds of one function, a value a round."""

    seconds: tuple

    @property
    def median(self):
        return statistics.median(self.seconds)

    @property
    def quartiles(self):
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def ratio_to(self, other):
        """Return the median of the ratios round by round, which a slow spell of the machine cancels in."""
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=True))


def interleaved(functions, *, rounds=7, warmup=1):
    """Time functions in turns.

    Parameters
    ----------
    functions : dict of str to callable
        Called without arguments; what they return is dropped outside the measured time.
    rounds : int
        Measured calls of each, at least 2.
    warmup : int
        Unmeasured rounds before.

    Returns
    -------
    timings : dict of str to Timing
    """
    seconds = {name: [] for name in functions}
    for turn in range(warmup + rounds):
        for name, function in functions.items():
            gc.collect()
            start = time.perf_counter()
            result = function()
            elapsed = time.perf_counter() - start
            del result
            if turn >= warmup:
                seconds[name].append(elapsed)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def rows_of(timings, *, baseline, limits=()):
    """Return a table row for each timing.

    Parameters
    ----------
    timings : dict of str to Timing
    baseline : str
        The name that the others are divided by.
    limits : dict of str to float
        The largest ratio that is fine, for those that have one.
    """
    limits = dict(limits)
    rows = []
    for name, timing in timings.items():
        low, high = timing.quartiles
        row = {
            "what": name,
            "median s": f"{timing.median:.4g}",
            "quartiles s": f"{low:.4g} – {high:.4g}",
            "ratio": f"{timing.ratio_to(timings[baseline]):.2f}",
        }
        if name in limits:
            row["limit"] = f"≤ {limits[name]:g}"
            row["ok"] = timing.ratio_to(timings[baseline]) <= limits[name]
        rows.append(row)
    return rows


def peak_memory(script, *arguments):
    """Run a script in a process of its own; return its largest anonymous memory, in bytes.

    Pages of files, which the system takes back when it needs them, are not counted. Linux only.
    """
    process = subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)])
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                peak = max(peak, int(line.split()[1]) * 1024)
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"the script ended with status {process.returncode}")
    return peak
