"""Files and folders, on disk or inside of a ZIP archive, by one set of functions.

A path inside of an archive is ``ARCHIVE.zip!MEMBER``; ``ARCHIVE.zip!`` is the folder at its top.
Plain paths go straight to `os`.
"""

import io
import os
import posixpath

from ._archive import open_archive, read_member, split_archive


def isfile(path):
    """Tell whether there is such a file."""
    inside = split_archive(path)
    if inside is None:
        return os.path.isfile(path)
    archive, name = inside
    return os.path.isfile(archive) and name in open_archive(archive).members


def isdir(path):
    """Tell whether there is such a folder."""
    inside = split_archive(path)
    if inside is None:
        return os.path.isdir(path)
    archive, name = inside
    return os.path.isfile(archive) and name in open_archive(archive).folders


def exists(path):
    """Tell whether there is such a file or folder."""
    return isfile(path) or isdir(path)


def names(folder):
    """Return the names in a folder."""
    inside = split_archive(folder)
    if inside is None:
        return os.listdir(folder)
    archive, name = inside
    found = open_archive(archive)
    if name in found.folders:
        return found.folders[name]
    if name in found.members:
        raise NotADirectoryError(f"{folder!r} is a file. Pass a folder.")
    raise FileNotFoundError(f"The archive {archive!r} has no folder {name!r}. Check the path after the '!'.")


def folders(folder):
    """Return the paths of the folders in a folder."""
    if split_archive(folder) is not None:
        return [path for path in (join(folder, name) for name in names(folder)) if isdir(path)]
    with os.scandir(folder) as entries:
        return [entry.path for entry in entries if entry.is_dir()]


def readable(path):
    """Return what readers of files take: the path itself, or the content of an archive's member."""
    inside = split_archive(path)
    return path if inside is None else io.BytesIO(read_member(*inside))


def read_bytes(path, count=-1):
    """Return the first `count` bytes of a file, or all of them."""
    inside = split_archive(path)
    if inside is not None:
        data = read_member(*inside)
        return data if count < 0 else data[:count]
    with open(path, "rb") as file:
        return file.read(count)


def size(path):
    """Return the number of bytes of a file."""
    inside = split_archive(path)
    if inside is None:
        return os.path.getsize(path)
    archive, name = inside
    return open_archive(archive).members[name].size


def identity(path):
    """Return what tells a file's content from any other's: its place, size and time of change."""
    inside = split_archive(path)
    found = os.stat(path if inside is None else inside[0])
    # Of an archive, all members count as changed when it has.
    return f"{absolute(path)}\0{found.st_size}\0{found.st_mtime_ns}"


def as_folder(path):
    """Return the folder that a path means: an archive stands for the folder at its top."""
    return f"{path}!" if path.lower().endswith(".zip") and os.path.isfile(path) else path


def absolute(path):
    """Return the absolute path in its one spelling."""
    return _tidied(path, os.path.abspath)


def normal(path):
    """Return the path in its one spelling."""
    return _tidied(path, os.path.normpath)


def _tidied(path, tidy):
    inside = split_archive(path)
    if inside is None:
        return tidy(path)
    archive, name = inside
    # By itself, so that ".." never leads out of the archive.
    name = posixpath.normpath(name)
    return f"{tidy(archive)}!{'' if name == '.' else name}"


def join(folder, name):
    """Return the path of a name in a folder."""
    inside = split_archive(folder)
    if inside is None or inside[1] or os.path.isabs(name):
        return os.path.join(folder, name)
    return f"{inside[0]}!{name}"


def dirname(path):
    """Return the folder that a file or folder is in."""
    inside = split_archive(path)
    if inside is None or "/" in inside[1]:
        return os.path.dirname(path)
    archive, name = inside
    return f"{archive}!" if name else os.path.dirname(archive)


def basename(path):
    """Return the last name of a path."""
    inside = split_archive(path)
    return os.path.basename(path) if inside is None else os.path.basename(inside[1] or inside[0])


def components(path):
    """Return the names that a path consists of."""
    if (inside := split_archive(path)) is not None:
        path = "/".join(inside)
    return path.replace("\\", "/").rstrip("/").split("/")
