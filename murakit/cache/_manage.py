"""What a user does with a cache: see what it holds, and delete it."""

import os

import lmdb
import pandas as pd

from ._lmdb import connect, delete, path_in


def clear_cache(folder):
    """Delete what murakit has stored in a folder, and nothing else there.

    Parameters
    ----------
    folder : str or os.PathLike
        What was passed as ``cache=``.

    Returns
    -------
    freed : int
        Bytes that the deleted files took.

    Raises
    ------
    OSError
        Where they cannot be deleted.

    See Also
    --------
    cache_info : What a cache holds.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import clear_cache
    >>> clear_cache(tempfile.mkdtemp())
    0
    """
    return delete(folder)


def cache_info(folder):
    """Return what murakit has stored in a folder.

    Parameters
    ----------
    folder : str or os.PathLike
        What was passed as ``cache=``.

    Returns
    -------
    info : DataFrame
        One row for all that was made in one way: ``kind`` ("images" or "features"), ``what``
        (``image_size`` and the like), ``n_images`` and ``n_bytes``; the largest first. The sum of
        ``n_bytes`` is a little less than the file takes.

    Raises
    ------
    OSError
        Where there is a cache that cannot be read.

    See Also
    --------
    clear_cache : Delete it.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import cache_info
    >>> cache_info(tempfile.mkdtemp())
    Empty DataFrame
    Columns: [kind, what, n_images, n_bytes]
    Index: []
    """
    rows = []
    path = path_in(folder)
    if os.path.isfile(path):
        try:
            contents = list(connect(path).contents())
        except (lmdb.Error, OSError) as error:
            raise OSError(
                f"The cache in {os.path.dirname(path)!r} cannot be read: {error}. murakit.clear_cache deletes it."
            ) from error
        for about, n_images, n_bytes in contents:
            kind = about.pop("kind", "unknown")
            rows.append((kind, about, n_images, n_bytes))
    info = pd.DataFrame(rows, columns=["kind", "what", "n_images", "n_bytes"])
    return info.sort_values("n_bytes", ascending=False, ignore_index=True)
