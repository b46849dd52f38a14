"""Recordings as they are named on a command line: files, folders of them, standard input, a shell's `<(...)`; it knows no model."""

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
SOUND_FILES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".mp4", ".aac", ".webm", ".aif", ".aiff")
DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/\d+")  # what a shell makes of <(...): a pipe that is open already


def expanded(given: Iterable[str]) -> list[str]:
    """Return recordings' own names, and for folders those of the recordings in them; InputError for a folder without any."""
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
    """Return the name, without ending, of what is made of a recording: the recording's own, or `otherwise` where it has none."""
    return otherwise if is_pipe(name) else Path(name).stem or otherwise


def is_pipe(name: str) -> bool:
    """Say whether a name stands for standard input or an open pipe; a pipe in a folder is none, for nobody may ever write to it."""
    if name == STANDARD:
        return True
    try:
        return bool(DESCRIPTOR.fullmatch(name)) and stat.S_ISFIFO(os.stat(name).st_mode)
    except OSError:
        return False


def shown(name: str) -> str:
    """Return what a recording is called in what is printed."""
    return "standard input" if name == STANDARD else name


def sound_of(name: str) -> str | bytes:
    """Return a file's name as it is, and of a pipe what comes through it; InputError where nothing can, or too much does."""
    return read_pipe(name, PIPE_BYTES, "recording") if is_pipe(name) else name


def read_pipe(name: str, limit: int, what: str) -> bytes:
    """Return what comes through standard input or an open pipe; InputError where nothing can, or more than `limit` bytes do."""
    if name == STANDARD and (sys.stdin is None or sys.stdin.isatty()):
        raise InputError(f"there is nothing on standard input: send a {what} through a pipe.")
    with nullcontext(sys.stdin.buffer) if name == STANDARD else open(name, "rb") as pipe:
        content = pipe.read(limit + 1)
    if len(content) > limit:
        raise InputError(f"{shown(name)} holds more than {limit >> 20} MB: send a shorter {what}.")
    return content
