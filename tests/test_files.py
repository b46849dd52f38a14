"""The door to the disk: whole or not at all, only what is ours is removed, only regular files of a stated size are read."""

import json
import os
import socket

import pytest
from safetensors import SafetensorError

from echox import files
from echox.errors import ConfigError, InputError, ModelError, OutputError
from echox.files import (
    MARKER,
    check_ours,
    copy_file,
    inside,
    open_regular,
    read_header,
    read_text,
    remove,
    sha256_of,
    write_file,
    write_files,
    write_folder,
    write_text,
)


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def fill(**contents):
    def write(folder):
        for name, content in contents.items():
            write_text(folder / name, content)

    return write


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    write_text(tmp_path / "deep" / "a.txt", "old")
    with pytest.raises(KeyError), write_file(tmp_path / "deep" / "a.txt") as partial:
        partial.write_text("half")
        raise KeyError
    with pytest.raises(OutputError, match="a.txt"), write_file(tmp_path / "deep" / "a.txt") as partial:
        raise OSError(28, "No space left on device")
    with pytest.raises(OutputError, match="No space left"), write_file(tmp_path / "deep" / "a.txt"):
        raise SafetensorError("I/O error: No space left on device")
    with pytest.raises(RuntimeError, match="shapes"), write_file(tmp_path / "deep" / "a.txt"):
        raise RuntimeError("shapes cannot be multiplied")  # of a model that speaks into the file
    assert names(tmp_path) == ["deep", "deep/a.txt"] and (tmp_path / "deep" / "a.txt").read_text() == "old"
    write_text(tmp_path / ("n" * 250), "a name as long as they come")
    copy_file(tmp_path / "deep" / "a.txt", tmp_path / "b.txt")
    assert (tmp_path / "b.txt").read_text() == "old"


def test_a_process_that_is_told_to_end_leaves_no_part(tmp_path):
    def half(folder):
        (folder / "a").write_text("half")
        raise SystemExit(143)

    with pytest.raises(SystemExit), write_file(tmp_path / "answer.wav") as partial:
        partial.write_bytes(b"half")
        raise SystemExit(143)  # what the command line makes of SIGTERM
    with pytest.raises(SystemExit):
        write_folder(tmp_path / "model", half)
    assert names(tmp_path) == []


def test_only_files_are_replaced_by_files(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "folder", tmp_path / "pipe", "/dev/full", "/dev/null"):
        with pytest.raises(OutputError, match="folder, pipe or device"):
            write_text(place, "x")
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "link").symlink_to("precious")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "precious").read_text() == "precious" and (tmp_path / "link").read_text() == "new"


def test_a_folder_carries_the_list_of_its_files_and_is_replaced_by_it(tmp_path):
    folder = tmp_path / "model"
    write_folder(folder, fill(a="1", b="2"))
    assert json.loads((folder / MARKER).read_text())["files"] == ["a", "b"]
    write_folder(folder, fill(c="3"))
    assert names(tmp_path) == ["model", "model/.echox", "model/c"]
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "empty", fill(a="1"))
    assert (tmp_path / "empty" / "a").read_text() == "1"


def test_what_is_not_ours_is_never_replaced_or_removed(tmp_path):
    write_folder(tmp_path / "mixed", fill(a="1"))
    (tmp_path / "mixed" / "notes.txt").write_text("mine")
    (tmp_path / "mine" / "deep").mkdir(parents=True)
    (tmp_path / "mine" / "deep" / "thesis.tex").write_text("years")
    (tmp_path / "file").write_text("mine")
    write_folder(tmp_path / "ours", fill(a="1"))
    (tmp_path / "link").symlink_to("ours")
    (tmp_path / "forged").mkdir()
    (tmp_path / "forged" / MARKER).write_text('{"made_by": "echox", "files": null}')
    (tmp_path / "forged" / "thesis.tex").write_text("years")
    before = names(tmp_path)
    for name in ("mixed", "mine", "file", "link", "forged"):
        called = []
        with pytest.raises(OutputError, match=name):
            write_folder(tmp_path / name, called.append)
        with pytest.raises(OutputError, match=name):
            remove(tmp_path / name)
        assert called == []  # refused before any work
    assert names(tmp_path) == before
    remove(tmp_path / "ours")
    remove(tmp_path / "absent")
    assert not (tmp_path / "ours").exists()


def test_a_folder_that_fails_leaves_the_old_one(tmp_path):
    write_folder(tmp_path / "model", fill(a="1"))

    def fail(folder):
        write_text(folder / "a", "2")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        write_folder(tmp_path / "model", fail)
    assert names(tmp_path) == ["model", "model/.echox", "model/a"] and (tmp_path / "model" / "a").read_text() == "1"


def test_what_somebody_adds_while_a_folder_is_made_survives(tmp_path):
    write_folder(tmp_path / "model", fill(a="1"))

    def write(folder):
        (tmp_path / "model" / "notes.txt").write_text("mine")

    with pytest.raises(OutputError, match="notes.txt"):
        write_folder(tmp_path / "model", write)
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"


def test_leftovers_of_killed_processes_go_after_a_day_and_nothing_else_does(tmp_path, monkeypatch):
    for name in (".model.1-0.part", ".model.x.part"):
        (tmp_path / name).mkdir()
        files._mark(tmp_path / name, None)
    (tmp_path / ".model.2-0.part").mkdir()  # of our naming, but without our mark
    (tmp_path / ".model.2-0.part" / "mine").write_text("mine")
    write_folder(tmp_path / "model", fill(a="1"))
    assert (tmp_path / ".model.1-0.part").is_dir()  # another process may be at it
    monkeypatch.setattr(files, "STALE_SECONDS", -1.0)
    write_folder(tmp_path / "model", fill(a="1"))
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".model.2-0.part", ".model.x.part", "model"]


def test_several_files_appear_together(tmp_path):
    with pytest.raises(OutputError), write_files(tmp_path, {"0": "a"}) as place:
        (place / "0").write_text("half")
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == []
    with write_files(tmp_path, {"0": "a", "1": "b"}) as place:
        for name in "01":
            (place / name).write_text(name)
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize(
    "name", ["../x", "/etc", "a/../../x", "", ".", "..", "a\\b", "a/", ".ssh", "~", "C:x", "a\0b", "x" * 300]
)
def test_names_of_others_stay_inside(tmp_path, name):
    with pytest.raises(ModelError, match="does not lie in it"):
        inside(tmp_path, name)


def test_links_that_lead_out_are_seen(tmp_path):
    (tmp_path / "root" / "llm").mkdir(parents=True)
    (tmp_path / "root" / "out").symlink_to(tmp_path)
    (tmp_path / "root" / "loop").symlink_to("loop")
    assert inside(tmp_path / "root", "llm") == tmp_path / "root" / "llm"
    with pytest.raises(ModelError):
        inside(tmp_path / "root", "out")


def test_only_regular_files_of_a_stated_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "big").write_text("12345")
    (tmp_path / "latin").write_bytes(b"\xff\xfe\xfa")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        for path, reason in (
            (tmp_path / "pipe", "pipe or a device"),
            (tmp_path / "socket", "pipe or a device"),
            ("/dev/zero", "pipe or a device"),
            (tmp_path, "is a folder"),
            (tmp_path / "big", "5 bytes"),
            (tmp_path / "missing", "does not exist"),
            (tmp_path / ("x" * 300), "cannot be opened|does not exist"),
            (tmp_path / "loop", "cannot be opened"),
            (tmp_path / "a\0b", "cannot be opened"),
            (tmp_path / "latin", "not UTF-8"),
        ):
            with pytest.raises(ConfigError, match=reason) as caught:
                read_text(path, 4, ConfigError)
            assert "\n" not in str(caught.value)
    assert len(sha256_of(tmp_path / "big")) == 64
    with pytest.raises(InputError), open_regular(tmp_path / "pipe"):
        pass


def test_a_header_accounts_for_every_byte(tmp_path):
    def write(header, data=b""):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        (tmp_path / "x").write_bytes(len(text).to_bytes(8, "little") + text + data)
        return tmp_path / "x"

    whole = {"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}
    assert read_header(write(whole, b"1234")) == {"a": ("F16", (2,))}
    endless = b'{"a": {"dtype": "F16", "shape": [1e999], "data_offsets": [0, 4]}}'
    for header, data in (
        (endless, b"1234"),
        (whole, b"123"),
        (whole, b"12345"),
        ([], b""),
        (b"[" * 100_000, b""),
        ({"a": 1}, b""),
    ):
        with pytest.raises(ModelError):
            read_header(write(header, data))
    (tmp_path / "x").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="not a safetensors"):
        read_header(tmp_path / "x")


def test_an_unreadable_folder_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "x").touch()

    def closed(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.Path, "iterdir", closed)
    with pytest.raises(OutputError, match="Permission denied"):
        check_ours(tmp_path / "closed")


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
