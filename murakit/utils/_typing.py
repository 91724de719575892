"""Types of arguments that many functions take."""

import os
from collections.abc import Sequence

from numpy.typing import ArrayLike

# One file or folder.
PathLike = str | os.PathLike[str]

# Samples: paths of images or of study folders, as a list, array, Series or column of a DataFrame.
Paths = ArrayLike | Sequence[PathLike]
