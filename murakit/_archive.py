"""Members of ZIP archives, read in place: ``MURA-v1.1.zip!MURA-v1.1/train/...``.

Nothing is unpacked to disk, and no file stays open: what is kept is the list of members of the last
few archives. So there is no handle that forked processes or threads would have to share.
"""

import os
import re
import stat
import zipfile
import zlib
from functools import lru_cache
from typing import NamedTuple

from ._locks import Lock

# Most bytes of one member, packed or not: several times the largest radiograph, and what a reader's
# threads can hold at the same time.
MEMBER_LIMIT = 256 * 2**20

_SEPARATOR = re.compile(r"\.zip!", re.IGNORECASE)
_MAX_NAME = 1024
_KEPT_ARCHIVES = 8
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_LOCAL_HEADER = 30
_UNSAFE_PART = {"", ".", ".."}
_reading = Lock()


class Member(NamedTuple):
    """One file of an archive."""

    header: int  # where its local header begins
    method: int
    packed: int  # bytes in the archive
    size: int  # bytes that it declares to have
    crc: int
    refusal: str  # why it must not be read, or ""


class Archive(NamedTuple):
    """What an archive holds."""

    members: dict  # name to Member
    folders: dict  # name to the names in it, "" for the top


def split_archive(path):
    """Return the archive and the member that a path names, or None where it names no archive."""
    path = os.fspath(path)
    # The first test is for the many paths that lie in plain folders.
    if "!" not in path or (found := _SEPARATOR.search(path)) is None:
        return None
    return path[: found.end() - 1], path[found.end() :].replace(os.sep, "/").strip("/")


def open_archive(path):
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


def read_member(path, name):
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
        file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
        data = file.read(member.packed)
    if member.method == zipfile.ZIP_DEFLATED:
        try:
            # Never more than declared, whatever the stream holds.
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.size + 1)
        except zlib.error as error:
            raise ValueError(_damaged(path, name)) from error
    if header[:4] != b"PK\3\4" or len(data) != member.size or zlib.crc32(data) != member.crc:
        raise ValueError(_damaged(path, name))
    return data


def _damaged(path, name):
    return f"member {name!r} of the archive {path!r} is damaged: its size or checksum is not the stated one"


@lru_cache(maxsize=_KEPT_ARCHIVES)
def _read_directory(path, *state):
    try:
        with zipfile.ZipFile(path) as file:
            infos = file.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ValueError(
            f"{path!r} cannot be read as a ZIP archive: {error}. Download it again, or unpack it and pass the folder."
        ) from error
    members, folders = {}, {"": []}
    for info in infos:
        name = info.orig_filename
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


def _is_unsafe(name):
    return (
        len(name) > _MAX_NAME
        or "\\" in name
        or "\0" in name
        or re.match("[A-Za-z]:", name) is not None
        or not _UNSAFE_PART.isdisjoint(name.split("/"))
    )


def _refused(path, name, why):
    return (
        f"The archive {path!r} is refused: its member {name!r} {why}. Unpack it with a tool you trust, look "
        "at that member, and pass the folder or pack it again."
    )


def _refusal(info):
    if info.flag_bits & 1:
        return "is encrypted. Unpack the archive with its password and pass the folder"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a symbolic link, which is not followed. Pack the file itself"
    if max(info.file_size, info.compress_size) > MEMBER_LIMIT:
        return (
            f"declares {max(info.file_size, info.compress_size):,} bytes, more than the {MEMBER_LIMIT:,} of a "
            "member that is read: it may be a decompression bomb. Unpack it, and pass the folder"
        )
    if info.compress_type not in _METHODS:
        return (
            f"is packed with method {info.compress_type}; only 'stored' and 'deflated' are read. Pack it again, "
            "or unpack it and pass the folder"
        )
    return ""


def _enter(folders, name):
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
