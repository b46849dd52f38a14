"""What a model heard beside a recogniser: rates by hand, clips that a judge writes down, words in no speech."""

import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from eval_fakes import RATE, FakeJudge, call, voice

from echox.audio import save_wav
from echox.errors import ConfigError, InputError
from echox.eval.questions import Item, write_questions
from echox.eval.scorers.texts import NORMALISER
from echox.eval.tasks import hearing as module
from echox.eval.tasks.hearing import KINDS, gather, hear_all, hearing_tables, no_speech, read_clips, run_hearing
from echox.eval.tasks.spoken_set import RIGHT
from echox.generate.fake import FakeAssistant

TEXTS = {"a": "red green blue black", "b": "salt bread"}


@dataclass
class Ear:
    """Hears by the wave's length; a wave that is in nobody's table cannot be heard."""

    words: dict[int, str]
    calls: list[int] = field(default_factory=list)

    def hear(self, waves):
        self.calls.append(len(waves))
        if any(len(wave) not in self.words for wave in waves):
            raise InputError("the wave is too long")
        return [SimpleNamespace(text=self.words[len(wave)]) for wave in waves]


def subject(words):
    return SimpleNamespace(parts=SimpleNamespace(ear=Ear(words)))


@pytest.fixture
def spoken(tmp_path):
    """A finished spoken set of two questions whose recordings a fake judge can read."""
    folder = tmp_path / "set"
    (folder / "clean").mkdir(parents=True)
    for id, text in TEXTS.items():
        save_wav(folder / "clean" / f"{id}.wav", voice(text), RATE)
    write_questions(folder / "questions.tsv", [Item(id, text, ("x",), kind=RIGHT) for id, text in TEXTS.items()])
    (folder / "set.json").write_text(json.dumps({"pool": {RIGHT: 2}}))
    return folder


def length(id):
    return len(voice(TEXTS[id]))


def test_word_errors_by_hand_and_what_failed_counts_as_deleted(tmp_path, spoken):
    arms = gather(spoken, ["clean"], [], [], None, 0)
    model = subject({length("a"): "red green blew"})  # one word wrong, one deleted; b cannot be heard
    recognisers = (FakeJudge(mishears={"bread": "red"}), None)
    told = []
    (table,) = run_hearing(model, "m", arms, recognisers, tmp_path, told.append)
    (row,) = table.rows
    assert row[:3] == ("set, clean", "2", "6") and row[6] == "1" and "1 recordings were not heard" in told[0]
    assert row[3].startswith("66.7 [") and row[4].startswith("16.7 [") and row[5].startswith("4.00 [")
    assert "fake judge" in table.note and "normaliser" in table.note
    before = (tmp_path / "hearing.jsonl").read_bytes()
    run_hearing(model, "m", arms, recognisers, tmp_path, told.append)
    assert (tmp_path / "hearing.jsonl").read_bytes() == before  # resumed: nothing left to do


def test_shards_hear_each_recording_once(tmp_path, spoken):
    arms = gather(spoken, ["clean"], [], [], None, 0)
    for shard in ("0/2", "1/2"):
        model = subject({length(id): text for id, text in TEXTS.items()})
        (table,) = run_hearing(model, "m", arms, (FakeJudge(), None), tmp_path, print, shard=shard)
        assert table.rows[0][:2] == ("set, clean", "1")
    shown = call("report", *sorted(tmp_path.glob("hearing.*of2.jsonl")), "-o", tmp_path / "r.html")
    assert "| set, clean | 2 | 6 | 0.0 [0.0, 0.0] |" in shown


def test_clips_without_transcripts_are_written_down_by_the_judge(tmp_path):
    for name in ("8-1", "9-1"):
        save_wav(tmp_path / f"{name}.wav", voice("a b"), RATE)
    (tmp_path / "held.txt").write_text("9-1\n8-9\n")
    (only,) = read_clips(tmp_path, tmp_path / "held.txt")
    assert only.id == "9-1" and len(read_clips(tmp_path)) == 2
    save_wav(tmp_path / "by Ann.wav", voice("a b"), RATE)  # names may hold blanks: one stands on a line
    (tmp_path / "ann.txt").write_text("by Ann\r\n")
    assert [item.id for item in read_clips(tmp_path, tmp_path / "ann.txt")] == ["by Ann"]
    arms = gather(None, [], [], [tmp_path], tmp_path / "held.txt", 0)
    recognisers = (FakeJudge(), FakeJudge("labels", mishears={"b": "c"}))
    model = subject({len(voice("a b")): "a b"})
    (table,) = run_hearing(model, "m", arms, recognisers, tmp_path / "out", print)
    assert table.rows[0][3].startswith("50.0 [") and "the words of labels" in table.note
    (tmp_path / "held.txt").write_text("none\n")
    with pytest.raises(InputError, match=r"holds no recordings that .*held\.txt lists"):
        read_clips(tmp_path, tmp_path / "held.txt")
    with pytest.raises(InputError, match=r"absent\.txt"):
        read_clips(tmp_path, tmp_path / "absent.txt")


def test_clips_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for place in ("x/test/spk1", "x/test/spk2", "y/test/spk1"):
        (tmp_path / place).mkdir(parents=True)
        save_wav(tmp_path / place / "001.wav", voice(place), RATE)
    assert [item.id for item in read_clips(tmp_path / "x" / "test")] == ["spk1/001", "spk2/001"]
    with pytest.raises(ConfigError, match="two are called test"):
        gather(None, [], [], [tmp_path / "x" / "test", tmp_path / "y" / "test"], None, 0)
    (tmp_path / "x" / "test" / "spk1" / "001.flac").write_bytes(b"x")
    with pytest.raises(InputError, match="'spk1/001' is there twice"):
        read_clips(tmp_path / "x" / "test")


def test_sounds_without_speech_are_seeded_and_finite_and_differ():
    for kind in KINDS:
        first, again, other = (no_speech(kind, number) for number in (0, 0, 1))
        assert np.array_equal(first, again) and first.dtype == np.float32
        assert np.isfinite(first).all() and 1 <= len(first) / RATE <= 10 and 0 < np.abs(first).max() <= 1
        assert len(first) != len(other)
    assert np.abs(no_speech("silence", 0)).max() < 0.005


def test_words_in_no_speech_are_counted_by_kind():
    common = {"text": "", "words": 0, "word_edits": 0, "recognised_edits": 0, "error": ""}
    items = [common | {"arm": "nothing said: hum", "heard_words": n, "recognised_words": 0} for n in (0, 2)]
    items.append(common | {"arm": "nothing said: noise", "heard_words": 0, "recognised_words": 1})
    settings = {"model": "m", "reference": "r", "wer_normaliser": NORMALISER}
    (table,) = hearing_tables(settings, items)
    assert [row[0] for row in table.rows] == ["hum", "noise", "all"]
    assert table.rows[0][2].startswith("50.0") and table.rows[2][2].startswith("33.3")
    assert table.rows[1][3].startswith("100.0")


def test_a_model_without_an_ear_says_what_it_heard_with_its_answer():
    assert hear_all(FakeAssistant(), [0.1 * np.sin(np.arange(RATE))] * 2) == ["1.0 seconds"] * 2
    model = subject({5: "yes"})
    heard = hear_all(model, [np.zeros(5), np.zeros(6), np.zeros(5)])
    assert heard[0] == heard[2] == "yes" and "too long" in heard[1].reason
    assert model.parts.ear.calls == [3, 1, 1, 1]


def test_the_command_and_its_mistakes(tmp_path, spoken, monkeypatch):
    loaded = []
    monkeypatch.setattr(module, "load_judge", lambda *a, **options: (loaded.append((a, options)), FakeJudge())[1])
    shown = call(
        "hearing", "--set", spoken, "--conditions", "clean", "--nothing", 1, "--model", "fake", "--out", tmp_path / "o"
    )
    assert "### Hearing" in shown and "### Nothing said" in shown and "| all | 5 |" in shown
    assert loaded == [(("whisper-tiny.en", "auto", 30), {"beam": 1})]
    with pytest.raises(ConfigError, match="nothing to hear"):
        call("hearing", "--nothing", 0, "--model", "fake")
    with pytest.raises(ConfigError, match="cannot stand beside"):
        call("hearing", "--clips", spoken, "--reference", "x", "--judge", "x", "--model", "fake")
