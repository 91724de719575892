"""Files and folders, on disk or inside of a ZIP archive, by one set of functions.

A path inside of an archive is ``ARCHIVE.zip!MEMBER``; ``ARCHIVE.zip!`` is the folder at its top.
Plain paths go straight to `os`.
"""

import io
import os
import posixpath
import re
import stat
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from ..utils._threading import Lock

DICOM_SUFFIXES = (".dcm", ".dicom")

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", *DICOM_SUFFIXES)


def is_image_name(name: str) -> bool:
    """Tell whether a file name is an image's: no hidden file, no AppleDouble copy, no other type."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


# Most bytes of one member, packed or not: several times the largest radiograph, and what a reader's
# threads can hold at the same time.
MEMBER_LIMIT = 256 * 2**20

_SEPARATOR = re.compile(r"\.zip!", re.IGNORECASE)

_MAX_NAME = 1024

_KEPT_ARCHIVES = 8

_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}

_LOCAL_HEADER = 30

# The bit of a member's flags that says how its name is written.
_UTF_8 = 0x800

_UNSAFE_PART = {"", ".", ".."}

_reading = Lock()


class Member(NamedTuple):
    """One file of an archive."""

    header: int  # where its local header begins
    stored_name: bytes  # as the archive has it
    method: int
    packed: int  # bytes in the archive
    size: int  # bytes that it has by the directory
    crc: int
    refusal: str  # why it must not be read, or ""


class Archive(NamedTuple):
    """What an archive holds."""

    members: dict[str, Member]
    folders: dict[str, list[str]]  # name to the names in it, "" for the top


def split_archive(path: str | os.PathLike) -> tuple[str, str] | None:
    """Return the archive and the member that a path names, or None where it names no archive."""
    path = os.fspath(path)
    # The first test is for the many paths that lie in plain folders.
    if "!" not in path or (found := _SEPARATOR.search(path)) is None:
        return None
    return path[: found.end() - 1], path[found.end() :].replace(os.sep, "/").strip("/")


def open_archive(path: str) -> Archive:
    """Return the `Archive` at a path; it is read once, and again when the file has changed.

    Raises
    ------
    FileNotFoundError
        Where there is no such file.
    ValueError
        For what is no ZIP archive, and for one with names that do not stay inside of it or that
        occur twice.
    """
    found = os.stat(path)
    with _reading:
        return _read_directory(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def read_member(path: str, name: str) -> bytes:
    """Return the content of a member.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        Where there is no such file in the archive.
    ValueError
        For an encrypted or damaged member, a link, and one above `MEMBER_LIMIT`.
    """
    archive = open_archive(path)
    member = archive.members.get(name)
    if member is None:
        if name in archive.folders:
            raise IsADirectoryError(f"{name!r} is a folder of the archive {path!r}. Pass a file in it.")
        raise FileNotFoundError(f"The archive {path!r} has no member {name!r}. Check the path after the '!'.")
    if member.refusal:
        raise ValueError(f"member {name!r} of the archive {path!r} {member.refusal}")
    # Opened for each member, as files in a folder are: a shared handle would need a lock, and care in forks.
    with open(path, "rb") as file:
        file.seek(member.header)
        header = file.read(_LOCAL_HEADER)
        local_name = file.read(int.from_bytes(header[26:28], "little"))
        file.seek(int.from_bytes(header[28:30], "little"), 1)
        data = file.read(member.packed)
    if header[:4] == b"PK\3\4" and local_name != member.stored_name:
        raise ValueError(
            f"member {name!r} of the archive {path!r} has another name, {local_name.decode(errors='replace')!r}, in "
            "front of its content: pack the archive again"
        )
    if member.method == zipfile.ZIP_DEFLATED:
        try:
            # Never more than the directory says, whatever the stream holds.
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.size + 1)
        except zlib.error as error:
            raise ValueError(_damaged(path, name)) from error
    if header[:4] != b"PK\3\4" or len(data) != member.size or zlib.crc32(data) != member.crc:
        raise ValueError(_damaged(path, name))
    return data


def _damaged(path: str, name: str) -> str:
    return f"member {name!r} of the archive {path!r} is damaged: its size or checksum is not that of the directory"


@lru_cache(maxsize=_KEPT_ARCHIVES)
def _read_directory(path: str, *state: int) -> Archive:
    try:
        with zipfile.ZipFile(path) as file:
            infos = file.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ValueError(
            f"{path!r} cannot be read as a ZIP archive: {error}. Download it again, or unpack it and pass the folder."
        ) from error
    members, folders = {}, {"": []}
    for info in infos:
        name = _in_one_spelling(info.orig_filename)
        if not name and info.orig_filename:
            # "./", the folder at the top.
            continue
        is_folder = name.endswith("/")
        name = name.removesuffix("/")
        if _is_unsafe(name):
            raise ValueError(_refused(path, name, "has a name that does not stay inside of the archive"))
        if is_folder:
            _enter(folders, name)
            continue
        if name in members:
            raise ValueError(_refused(path, name, "occurs twice"))
        members[name] = Member(
            info.header_offset,
            info.orig_filename.encode("utf-8" if info.flag_bits & _UTF_8 else "cp437"),
            info.compress_type,
            info.compress_size,
            info.file_size,
            info.CRC,
            _refusal(info),
        )
        parent, _, base = name.rpartition("/")
        _enter(folders, parent).append(base)
    if both := folders.keys() & members.keys():
        raise ValueError(_refused(path, min(both), "is both a file and a folder"))
    return Archive(members, folders)


def _in_one_spelling(name: str) -> str:
    # ZIP knows "/" alone (APPNOTE 4.4.17), but programs for Windows write "\\", and some begin with "./".
    name = name.replace("\\", "/")
    while name.startswith("./"):
        name = name[2:]
    return name


def _is_unsafe(name: str) -> bool:
    return (
        len(name) > _MAX_NAME
        or "\0" in name
        or re.match("[A-Za-z]:", name) is not None
        or not _UNSAFE_PART.isdisjoint(name.split("/"))
    )


def _refused(path: str, name: str, why: str) -> str:
    return (
        f"The archive {path!r} is refused: its member {name!r} {why}. Unpack it with a tool you trust, look "
        "at that member, and pass the folder or pack it again."
    )


def _refusal(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 1:
        return "is encrypted. Unpack the archive with its password and pass the folder"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a symbolic link, which is not followed. Pack the file itself"
    if max(info.file_size, info.compress_size) > MEMBER_LIMIT:
        return (
            f"has {max(info.file_size, info.compress_size):,} bytes by the directory, more than the {MEMBER_LIMIT:,} "
            "of a member that is read: it may be a decompression bomb. Unpack it, and pass the folder"
        )
    if info.compress_type not in _METHODS:
        return (
            f"is packed with method {info.compress_type}; only 'stored' and 'deflated' are read. Pack it again, "
            "or unpack it and pass the folder"
        )
    return ""


def _enter(folders: dict[str, list[str]], name: str) -> list[str]:
    """Return the names in a folder, which is entered with those above it where it is new."""
    new = []
    above = name
    while above not in folders:
        new.append(above)
        above = above.rpartition("/")[0]
    for folder in reversed(new):
        folders[folder] = []
        parent, _, base = folder.rpartition("/")
        folders[parent].append(base)
    return folders[name]


def isfile(path: str) -> bool:
    """Tell whether there is such a file."""
    inside = split_archive(path)
    if inside is None:
        return os.path.isfile(path)
    archive, name = inside
    return os.path.isfile(archive) and name in open_archive(archive).members


def isdir(path: str) -> bool:
    """Tell whether there is such a folder."""
    inside = split_archive(path)
    if inside is None:
        return os.path.isdir(path)
    archive, name = inside
    return os.path.isfile(archive) and name in open_archive(archive).folders


def exists(path: str) -> bool:
    """Tell whether there is such a file or folder."""
    return isfile(path) or isdir(path)


def names(folder: str) -> list[str]:
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


def folders(folder: str) -> list[str]:
    """Return the paths of the folders in a folder."""
    if split_archive(folder) is not None:
        return [path for path in (join(folder, name) for name in names(folder)) if isdir(path)]
    with os.scandir(folder) as entries:
        return [entry.path for entry in entries if entry.is_dir()]


def readable(path: str) -> str | BinaryIO:
    """Return what readers of files take: the path itself, or the content of an archive's member."""
    inside = split_archive(path)
    return path if inside is None else io.BytesIO(read_member(*inside))


def opened(path: str) -> BinaryIO:
    """Open a file, or a member of an archive, to read its bytes."""
    inside = split_archive(path)
    return open(path, "rb") if inside is None else io.BytesIO(read_member(*inside))


def read_bytes(path: str, count: int = -1) -> bytes:
    """Return the first `count` bytes of a file, or all of them."""
    inside = split_archive(path)
    if inside is not None:
        data = read_member(*inside)
        return data if count < 0 else data[:count]
    with open(path, "rb") as file:
        return file.read(count)


def size(path: str) -> int:
    """Return the number of bytes of a file."""
    inside = split_archive(path)
    if inside is None:
        return os.path.getsize(path)
    archive, name = inside
    return open_archive(archive).members[name].size


def identity(path: str) -> str:
    """Return what tells a file's content from any other's: its place, size, times of change and inode."""
    inside = split_archive(path)
    found = os.stat(path if inside is None else inside[0])
    # Of an archive, all members count as changed when it has.
    # A copy may keep the size and the time of change of what it replaces, but not the inode and the time at which
    # that was changed.
    state = found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
    return "\0".join((absolute(path), *map(str, state)))


def as_folder(path: str) -> str:
    """Return the folder that a path means: an archive stands for the folder at its top."""
    return f"{path}!" if path.lower().endswith(".zip") and os.path.isfile(path) else path


def absolute(path: str) -> str:
    """Return the absolute path in its one spelling."""
    return _tidied(path, os.path.abspath)


def normal(path: str) -> str:
    """Return the path in its one spelling."""
    return _tidied(path, os.path.normpath)


def _tidied(path: str, tidy: Callable[[str], str]) -> str:
    inside = split_archive(path)
    if inside is None:
        return tidy(path)
    archive, name = inside
    # By itself, so that ".." never leads out of the archive.
    name = posixpath.normpath(name)
    return f"{tidy(archive)}!{'' if name == '.' else name}"


def join(folder: str, name: str) -> str:
    """Return the path of a name in a folder."""
    inside = split_archive(folder)
    if inside is None or inside[1] or os.path.isabs(name):
        return os.path.join(folder, name)
    return f"{inside[0]}!{name}"


def dirname(path: str) -> str:
    """Return the folder that a file or folder is in."""
    inside = split_archive(path)
    if inside is None or "/" in inside[1]:
        return os.path.dirname(path)
    archive, name = inside
    return f"{archive}!" if name else os.path.dirname(archive)


def basename(path: str) -> str:
    """Return the last name of a path."""
    inside = split_archive(path)
    return os.path.basename(path) if inside is None else os.path.basename(inside[1] or inside[0])


def components(path: str) -> list[str]:
    """Return the names that a path consists of."""
    if (inside := split_archive(path)) is not None:
        path = "/".join(inside)
    return path.replace("\\", "/").rstrip("/").split("/")
