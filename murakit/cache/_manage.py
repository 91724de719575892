"""Public functions for a cache: list its contents, and delete it."""

import os

import lmdb
import pandas as pd

from ._lmdb import cache_file, connect, delete


def clear_cache(folder: str | os.PathLike[str]) -> int:
    """Delete the cache that murakit has made in a folder; other files there are kept.

    Parameters
    ----------
    folder : str or os.PathLike
        The folder that was passed as ``cache=``.

    Returns
    -------
    freed : int
        Size of the deleted files on disk, in bytes.

    Raises
    ------
    OSError
        If a file cannot be deleted.

    See Also
    --------
    cache_info : List the contents of a cache.

    Examples
    --------
    >>> import tempfile
    >>> from murakit import clear_cache
    >>> clear_cache(tempfile.mkdtemp())
    0
    """
    return delete(folder)


def cache_info(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """List the contents of the cache in a folder.

    Parameters
    ----------
    folder : str or os.PathLike
        The folder that was passed as ``cache=``.

    Returns
    -------
    info : DataFrame
        One row for all images, or features, that were computed with the same settings; the largest
        first. Columns: ``kind`` ("images" or "features"), ``what`` (dict of the settings, such as
        ``image_size``), ``n_images`` and ``n_bytes``. The sum of ``n_bytes`` is a little less than the
        size of the file.

    Raises
    ------
    OSError
        If the cache cannot be read.

    See Also
    --------
    clear_cache : Delete a cache.

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
    path = cache_file(folder)
    if os.path.isfile(path):
        try:
            contents = list(connect(path).contents())
        except (lmdb.Error, OSError) as error:
            raise OSError(
                f"The cache in {os.path.dirname(path)!r} cannot be read: {error}. murakit.clear_cache deletes it."
            ) from error
        for settings, n_images, n_bytes in contents:
            kind = settings.pop("kind", "unknown")
            rows.append((kind, settings, n_images, n_bytes))
    info = pd.DataFrame(rows, columns=["kind", "what", "n_images", "n_bytes"])
    return info.sort_values("n_bytes", ascending=False, ignore_index=True)
