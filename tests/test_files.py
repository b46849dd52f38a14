"""The door to the disk: nothing of others is removed, nothing is half-written, nothing unbounded is read."""

import os
import time

import pytest

from echox import files
from echox.errors import InputError, ModelError, OutputError


def fill(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "weights").write_text("1")


def test_a_folder_is_written_whole_and_replaced_only_when_it_is_ours(tmp_path):
    place = tmp_path / "model"
    files.write_folder(place, fill)
    assert files.is_ours(place) and (place / "sub" / "weights").read_text() == "1"
    files.write_folder(place, fill)
    (place / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match=r"thesis.txt"):
        files.write_folder(place, fill)
    with pytest.raises(OutputError, match=r"thesis.txt"):
        files.remove(place)
    (place / "thesis.txt").rename(tmp_path / "thesis.txt")
    files.remove(place)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("marker", [None, "", "[]", "{}", '{"made_by": "echox"}', '{"made_by": "echox", "files": []}'])
def test_a_folder_that_is_not_ours_stays_as_it_is(tmp_path, marker):
    place = tmp_path / "photos"
    place.mkdir()
    (place / "wedding.jpg").write_text("once")
    if marker is not None:
        (place / files.MARKER).write_text(marker)
    for attempt in (lambda: files.write_folder(place, fill), lambda: files.remove(place)):
        with pytest.raises(OutputError, match="photos"):
            attempt()
    assert (place / "wedding.jpg").read_text() == "once" and len(list(tmp_path.iterdir())) == 1


def test_links_and_files_are_not_replaced_by_folders(tmp_path):
    fill_at = tmp_path / "home"
    files.write_folder(fill_at, fill)
    (tmp_path / "link").symlink_to(fill_at)
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "link", tmp_path / "file"):
        with pytest.raises(OutputError, match="link"):
            files.write_folder(place, fill)
    (fill_at / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(OutputError, match="elsewhere"):
        files.remove(fill_at)


def test_what_fails_half_way_leaves_nothing_and_the_old_stays(tmp_path):
    place = tmp_path / "model"
    files.write_folder(place, fill)

    def fail(folder):
        fill(folder)
        raise ModelError("no")

    with pytest.raises(ModelError):
        files.write_folder(place, fail)
    with pytest.raises(ZeroDivisionError), files.write_file(tmp_path / "a.wav") as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["model"] and files.is_ours(place)


def test_what_killed_writers_left_is_swept_a_day_later_and_nothing_else(tmp_path):
    for name, marked, age in (
        (".model.1-0.part", True, 9e5),
        (".model.2-0.part", True, 0),
        (".model.3-0.part", False, 9e5),
    ):
        (tmp_path / name).mkdir()
        if marked:
            files._mark(tmp_path / name, None)
        (tmp_path / name / "x").touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    files.write_folder(tmp_path / "model", fill)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".model.2-0.part", ".model.3-0.part", "model"]


def test_outputs_that_are_no_file_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", "/dev/full"):
        with pytest.raises(OutputError, match="folder, pipe or device"):
            files.write_text(place, "x")
    with pytest.raises(OutputError, match="cannot be written"):
        files.write_text(tmp_path / ("n" * 300), "x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    files.write_text(tmp_path / "loop", "x")  # the link is replaced, as naming an output means
    assert (tmp_path / "loop").read_text() == "x"


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../x", "", ".", "..", "a\\b", ".ssh", "C:x", "a\n", "x" * 201]
)
def test_names_in_files_of_others_lie_under_their_root(tmp_path, name):
    with pytest.raises(ModelError):
        files.inside(tmp_path, name)


def test_links_do_not_lead_out_of_a_root(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "llm").symlink_to(tmp_path)
    with pytest.raises(ModelError):
        files.inside(tmp_path / "model", "llm")
    assert files.inside(tmp_path, "model") == tmp_path / "model"


def test_only_regular_files_of_a_stated_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "latin").write_bytes(b"\xff\xfe\xfd")
    (tmp_path / "big").write_bytes(b"x" * 11)
    cases = {
        tmp_path / "pipe": "pipe or a device",
        "/dev/zero": "pipe or a device",
        tmp_path: "is a folder",
        tmp_path / "loop": "cannot be opened",
        tmp_path / ("n" * 300): "cannot be opened",
        "a\0b": "cannot be opened",
        tmp_path / "none": "does not exist",
        tmp_path / "latin": "not UTF-8",
        tmp_path / "big": "11 bytes",
    }
    for path, words in cases.items():
        with pytest.raises(InputError, match=words):
            files.read_text(path, 10)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 7, b"\xff" * 16, b"\2" + b"\0" * 7 + b"[]", b"\2" + b"\0" * 7 + b"{}rest", b"version https"],
)
def test_headers_that_are_not_whole_are_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="model.safetensors"):
        files.read_header(path)


def test_a_torn_line_is_cut_off_results_and_off_nothing_else(tmp_path):
    ours, notes = tmp_path / "results.jsonl", tmp_path / "notes.txt"
    ours.write_bytes(b"{ours\n{torn")
    notes.write_bytes(b"one line, unfinished")
    for path in (ours, notes):
        files.drop_partial_line(path, b"{ours")
    assert ours.read_bytes() == b"{ours\n" and notes.read_bytes() == b"one line, unfinished"


def test_a_lock_is_exclusive(tmp_path):
    from filelock import FileLock, Timeout

    with files.locked(tmp_path / "cache" / "x"), pytest.raises(Timeout):
        FileLock(tmp_path / "cache" / "x.lock", timeout=0).acquire()
