"""Recordings named on a command line: files, folders, standard input, or a shell's `<(...)`; it knows no model."""

import os
import re
import stat
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from os.path import isdir  # unlike that of Path, no loop of links or long name ends it
from pathlib import Path

from echox.errors import InputError

STANDARD = "-"  # standard input as a recording, standard output as the place of the speech
PIPE_BYTES = 200 << 20
SOUND_FILES = (
    ".wav .flac .ogg .oga .opus .mp3 .m4a .mp4 .aac .webm .weba .mkv .mka .3gp .amr .aif .aiff .au .caf .w64"
).split()
DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/\d+")  # what a shell makes of <(...): a pipe that is open already


def expanded(given: Iterable[str]) -> list[str]:
    """Return the names with folders replaced by the recordings in them; InputError for a folder without any."""
    names = []
    for name in given:
        names += [name] if name == STANDARD or not isdir(name) else _in_folder(Path(name))
    return names


def _in_folder(folder: Path) -> list[str]:
    names = sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in SOUND_FILES)
    if not names:
        raise InputError(f"{folder} holds no recording ({' '.join(SOUND_FILES)}): give another folder.")
    return names


def stem_of(name: str, otherwise: str) -> str:
    """Return the stem of the output file of a recording: its own stem, or `otherwise` for a pipe."""
    return otherwise if is_pipe(name) else Path(name).stem or otherwise


def is_pipe(name: str) -> bool:
    """Say whether a name is standard input or a pipe that is open already; a named pipe, which may never be written, is not."""
    if name == STANDARD:
        return True
    try:
        return bool(DESCRIPTOR.fullmatch(name)) and stat.S_ISFIFO(os.stat(name).st_mode)
    except OSError:
        return False


def shown(name: str) -> str:
    """Return the printed name of a recording."""
    return "standard input" if name == STANDARD else name


def sound_of(name: str) -> str | bytes:
    """Return the name of a file, or the content of a pipe; InputError as in `read_pipe`."""
    return read_pipe(name, PIPE_BYTES, "recording") if is_pipe(name) else name


def read_pipe(name: str, limit: int, what: str) -> bytes:
    """Return the content of standard input or an open pipe; InputError on a terminal, or for more than `limit` bytes."""
    if name == STANDARD and (sys.stdin is None or sys.stdin.isatty()):
        raise InputError(f"there is nothing on standard input: send a {what} through a pipe.")
    with nullcontext(sys.stdin.buffer) if name == STANDARD else open(name, "rb") as pipe:
        content = pipe.read(limit + 1)
    if len(content) > limit:
        raise InputError(f"{shown(name)} holds more than {limit >> 20} MB: send a shorter {what}.")
    return content
