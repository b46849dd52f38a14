"""Tables and reports: what is counted, what each note names, runs of every task together, and items that are there twice."""

import base64
import io
import re

import numpy as np
import pytest
import soundfile

from echox.audio import save_wav
from echox.errors import InputError
from echox.eval import results
from echox.eval.report.page import embedded_audio, read_beside, side_by_side, tables_of, write_html
from echox.eval.report.plots import draw_accuracy, draw_gaps
from echox.eval.results import Results, read_all, titles_of
from echox.eval.scorers.sounds import DC_LIMIT
from echox.eval.tasks.qa_tables import qa_tables
from echox.eval.tasks.spoken_answers import speech_table

SETTINGS = {
    "task": "qa",
    "model": "m",
    "scorer": "qa-exist-match",
    "normaliser": "NFD",
    "judge": "ears",
    "shard": "0/1",
}
SIGNAL = {"words_per_second": 2.0, "pause_seconds": 0.5, "clipped": 0.0, "dc": 0.001}


def item(arm, name, score=1.0, **more):
    """Returns the least that a results item has."""
    base = {"arm": arm, "id": name, "question": f"{name}?", "answers": ["x"], "text": "one two", "score": score}
    return base | {"heard": None, "transcript": None, "error": "", "finish": "stop"} | more


def spoken(name, edits, arm="s2s", **more):
    """Returns a spoken answer of ten words of which `edits` were misheard."""
    counts = {"words": 10, "word_edits": edits, "characters": 50, "character_edits": edits}
    return item(arm, name, transcript="some words", audio_seconds=2.0, signal=SIGNAL, **counts, **more)


def write(folder, settings, items):
    """Writes a results file and returns its path."""
    path = folder / f"{settings['task'] if settings['task'] != 'qa' else 'results'}.jsonl"
    written = Results(path, settings)
    for each in items:
        written.append(each)
    return path


def column(table, name):
    """Returns a table's cells under one head."""
    return [row[table.head.index(name)] for row in table.rows]


def test_silent_and_failed_answers_count_all_their_words_as_deleted():
    silent = spoken("b", 10)
    del silent["signal"]
    failed = item("s2s", "c", 0.0, transcript="", text="", error="RuntimeError: no voice")
    said = item("s2t", "c", text=" ".join(["word"] * 20))  # what c would have said
    own = item("teacher", "c", 0.0, transcript="", text="four words not heard", error="no voice")
    table = speech_table([spoken("a", 0), silent, failed, said, own], "")
    assert [cell.split(" ")[0] for cell in column(table, "WER %")] == ["75.0", "100.0"]  # (0 + 10 + 20) of 40; 4 of 4
    assert column(table, "n") == ["3", "1"] and column(table, "no sound %") == ["66.7", "100.0"]
    assert column(table, "words/s") == ["2.00", "-"]


def test_offsets_are_held_against_the_limit():
    off = spoken("b", 0) | {"signal": SIGNAL | {"dc": -2 * DC_LIMIT}}
    table = speech_table([spoken("a", 0), off], "")
    assert column(table, "largest DC") == ["0.0200"] and column(table, "DC over 0.01 %") == ["50.0"]


def test_every_note_names_scorer_normaliser_and_judge():
    tables = qa_tables(SETTINGS | {"wer_normaliser": "WN"}, [spoken("a", 1), item("s2t", "a")])
    assert len(tables) == 3
    for table in tables:
        assert all(name in table.note for name in ("qa-exist-match", "NFD", "ears"))
    assert "WN" in tables[2].note and "deleted" in tables[2].note


def test_a_file_given_twice_counts_once(tmp_path):
    path = write(tmp_path, SETTINGS, [item("t2t", "a"), item("t2t", "b", 0.0)])
    (tmp_path / "copy").mkdir()
    copy = write(tmp_path / "copy", SETTINGS, [item("t2t", "a"), item("t2t", "b", 0.0)])
    ((_, items),) = read_all([path, path, copy])
    assert len(items) == 2
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other", SETTINGS, [item("t2t", "b", 1.0)])
    with pytest.raises(InputError, match="different results for t2t 'b'"):
        read_all([path, other])


def runs_of_every_task(folder):
    """Writes a file of each verb, as their programs do, and returns the qa run's path."""
    path = write(folder, SETTINGS, [spoken("a", 1), item("s2t", "a")])
    heard = {"arm": "set", "id": "a", "text": "t", "words": 4, "word_edits": 1, "recognised_edits": 2, "error": ""}
    write(folder, {"task": "hearing", "model": "m", "reference": "ears", "wer_normaliser": "WN"}, [heard])
    sound = spoken("a", 1, arm="m s2s") | {"measures": {"dnsmos": 3.25}}
    write(folder, {"task": "speech", "networks": ["dnsmos"], "judge": "ears"}, [sound])
    times = {"arm": "latency", "id": "a", "error": "", "first_audio": 1.5, "audio_seconds": 2.0, "underruns": 0}
    write(folder, {"task": "latency", "model": "m", "timed_on": "a box", "device": "cpu"}, [times])
    view = {"sets": 12, "cosines": [[0.1, 0.2, 0.0, 0.0, 0.1]], "probes": {"sound": [0.5], "meaning": [0.7]}}
    view |= {"arm": "gap", "id": "units", "sound_nearer": [[0.5, 0.4, 0.6]]}
    write(folder, {"task": "gap", "model": "m", "sets": 12, "voice": "Ann"}, [view])
    return path


TITLES = ("Accuracy", "Speech quality", "Hearing", "Latency", "Acoustic-semantic gap")


def test_a_report_takes_the_files_of_every_verb(tmp_path):
    runs_of_every_task(tmp_path)
    runs = read_all(sorted(tmp_path.glob("*.jsonl")))
    tables = write_html(tmp_path / "r.html", runs, lambda line: None)
    shown = "\n".join(table.markdown() for table in tables)
    assert all(title in shown for title in TITLES) and "3.25" in shown and "a box" in shown
    page = (tmp_path / "r.html").read_text()
    assert all(title in page for title in TITLES) and "cosine with the anchor" in page
    assert tables_of({"task": "tomorrow's"}, []) == []


def test_what_lies_beside_a_results_file_is_shown_with_it(tmp_path):
    path = runs_of_every_task(tmp_path)
    assert [run[0]["task"] for run in read_beside([path])] == ["qa", "speech", "latency", "hearing", "gap"]
    assert len(read_beside([path, tmp_path / "speech.jsonl"])) == 5  # none twice
    (tmp_path / "latency.jsonl").write_text("half a li")
    assert len(read_beside([path])) == 4
    with pytest.raises(InputError):
        read_beside([path, tmp_path / "latency.jsonl"])


def test_each_file_is_read_once(tmp_path, monkeypatch):
    path, seen = runs_of_every_task(tmp_path), []
    monkeypatch.setattr(
        results, "read_results", lambda path, real=results.read_results: (seen.append(path), real(path))[1]
    )
    for given in (tmp_path, path):
        seen.clear()
        assert len(read_beside([given])) == 5 and sorted(seen) == sorted(tmp_path.glob("*.jsonl"))


def test_a_folder_is_shown_without_what_cannot_be_read_beside_its_results(tmp_path):
    path = runs_of_every_task(tmp_path)
    held = [run[0]["task"] for run in read_beside([tmp_path])]
    assert sorted(held) == ["gap", "hearing", "latency", "qa", "speech"]
    with (tmp_path / "gap.jsonl").open("a") as file:
        file.write('{"type": "it\n')
    with (tmp_path / "latency.jsonl").open("a") as file:
        file.write('{"type": "it\n')
    assert [run[0]["task"] for run in read_beside([tmp_path])] == ["qa", "hearing", "speech"]
    assert len(read_all([tmp_path])) == 3
    (tmp_path / "hearing.jsonl").unlink()
    (tmp_path / "speech.jsonl").unlink()
    with path.open("a") as file:
        file.write('{"type": "it\n')
    with pytest.raises(InputError, match=r"results\.jsonl"):
        read_beside([tmp_path])
    path.unlink()
    with pytest.raises(InputError, match="gap.jsonl"):  # nothing else is there to show
        read_beside([tmp_path])


def test_runs_stand_side_by_side_with_paired_differences():
    first = (SETTINGS, [item("t2t", name, score) for name, score in (("c", 1), ("a", 1), ("b", 0))])
    other = (SETTINGS | {"model": "n"}, [item("t2t", name, score) for name, score in (("b", 1), ("a", 1), ("z", 1))])
    reworded = (SETTINGS | {"model": "o"}, [item("t2t", "a", question="else?")])
    table = side_by_side([first, other, reworded])
    ((arm, a, b, c, minus, none),) = table.rows
    assert arm == "t2t" and a.startswith("66.7 [") and b.startswith("100.0 [") and c.endswith("n=1")
    assert minus.startswith("50.0 [") and minus.endswith("n=2")  # a and b, paired by id
    assert none == "-" and "do not compare" not in table.note and "NFD" in table.note
    assert "do not compare" in side_by_side([first, (SETTINGS | {"judge": "nose"}, other[1])]).note


def test_equal_fractions_are_drawn_and_runs_are_named_in_a_legend():
    runs = [
        (SETTINGS | {"model": name}, [item(arm, str(n), 14 / 15) for arm in ("s2t", "t2t") for n in range(7)])
        for name in "mn"
    ]
    assert draw_accuracy(runs).startswith("<svg")  # by rounding, the mean of seven times 14/15 lies above its interval
    assert "legend_1" in draw_gaps(runs) and "legend_1" not in draw_gaps(runs[:1])


def test_runs_of_one_model_bear_their_questions_and_of_one_set_their_places(tmp_path):
    clean, noise = ((SETTINGS | {"questions": f"set, {name}"}, [item("t2t", "a")]) for name in ("clean", "noise"))
    assert side_by_side([clean, noise]).head[1:3] == ("A: m, set, clean, %", "B: m, set, noise, %")
    assert titles_of([clean, (SETTINGS | {"task": "latency"}, [])]) == [
        "m",
        "m",
    ]  # tables of two tasks bear other titles
    assert titles_of([clean, noise, clean]) == ["m, set, clean, 1", "m, set, noise", "m, set, clean, 3"]
    assert "m, set, noise: Accuracy" in [
        table.title for table in write_html(tmp_path / "r.html", [clean, noise], print)
    ]


def test_long_answers_are_embedded_without_loss(tmp_path):
    wave = np.random.default_rng(0).normal(0, 0.05, 40 * 16_000).astype(np.float32)
    save_wav(tmp_path / "long.wav", wave, 16_000)
    save_wav(tmp_path / "short.wav", wave[:8000], 16_000)
    player = embedded_audio(tmp_path / "long.wav")
    content = base64.b64decode(re.search(r"data:audio/flac;base64,([^\"]+)", player).group(1))
    heard, rate = soundfile.read(io.BytesIO(content), dtype="int16")
    assert rate == 16_000 and np.array_equal(heard, soundfile.read(tmp_path / "long.wav", dtype="int16")[0])
    assert "data:audio/wav" in embedded_audio(tmp_path / "short.wav")
    (tmp_path / "broken.wav").write_bytes(b"x" * 700_000)
    assert "broken" in embedded_audio(tmp_path / "broken.wav") and "missing" in embedded_audio(tmp_path / "no.wav")
