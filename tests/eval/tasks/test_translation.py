"""ASR-BLEU of arms: a perfect arm scores as the reference does, a wrong one less and significantly so; nothing is done twice."""

import numpy as np
import pytest
from eval_fakes import RATE, FakeJudge, Reply, call, voice

from echox.audio import save_wav
from echox.data.pairs import SpokenPair
from echox.errors import ConfigError, InputError
from echox.eval.report.page import tables_of
from echox.eval.results import read_results
from echox.eval.tasks.translation import Arm, TranslationOptions, cascade_arm, run_translation, units_of
from echox.generate.types import Reply as Spoken
from echox.models.encoder import SpeechEncoder
from echox.units.extractor import extract, load_centroids
from tests.tiny_translator import write_translator

SENTENCES = [
    f"the {colour} house is near the {place} of {name}"
    for colour in ("red", "blue", "old")
    for place in ("river", "town")
    for name in ("paris", "lima")
]


def model_arm(translator):
    return Arm(lambda pair: translator.translate(pair.audio))


class Translator:
    """Says what it is told to for every recording; counts how often it is asked."""

    def __init__(self, change=lambda text: text):
        self.change, self.asked = change, 0

    def translate(self, path):
        self.asked += 1
        number = int(path.stem)
        if self.change(SENTENCES[number]) is None:
            raise InputError("it cannot be heard.")
        reply = Reply(self.change(SENTENCES[number]), voice(self.change(SENTENCES[number])))
        reply.units = [number]
        return reply


@pytest.fixture
def pairs(tmp_path):
    rows = []
    for number, text in enumerate(SENTENCES):
        save_wav(tmp_path / f"{number}.wav", 0.1 * np.sin(np.arange(8000) * 0.1), RATE)
        rows.append(SpokenPair(str(number), tmp_path / f"{number}.wav", text))
    return rows


def test_arms_are_scored_compared_and_resumed(pairs, tmp_path):
    good, bad = Translator(), Translator(lambda text: text.replace("house", "horse").replace("near", "under"))
    arms = {"good": model_arm(good), "bad": model_arm(bad)}
    options = TranslationOptions(tmp_path / "out", "test.tsv")
    tables = {table.title: table for table in run_translation(pairs, arms, FakeJudge(), options)}
    scores = {row[0]: float(row[2].split()[0]) for row in tables["Translation"].rows}
    assert scores["good"] == pytest.approx(100) and 20 < scores["bad"] < 80
    assert "nrefs:1" in tables["Translation"].note and "fake judge" in tables["Translation"].note
    (against,) = tables["Against the first model"].rows
    assert against[:3] == ("bad", "good", "12") and float(against[5]) < -20 and float(against[7]) < 0.05
    assert (tmp_path / "out" / "audio" / "good" / "0.wav").is_file()
    run_translation(pairs, arms, FakeJudge(), options)
    assert good.asked == bad.asked == len(SENTENCES)
    settings, items = read_results(tmp_path / "out" / "translation.jsonl")
    assert [table.title for table in tables_of(settings, items)] == list(tables)


def test_a_recording_that_fails_counts_as_nothing_said(pairs, tmp_path):
    half = Translator(lambda text: None if "red" in text else text)
    (table, *_) = run_translation(
        pairs, {"half": model_arm(half)}, FakeJudge(), TranslationOptions(tmp_path / "o", "t")
    )
    assert table.rows[0][-1] == "4" and float(table.rows[0][2].split()[0]) < 100


def test_broken_files_cost_their_own_scores_alone(pairs, tmp_path):
    """One recording cannot be read, and one reference speech: the first is nothing said, the second has no units."""
    pairs[0].audio.write_bytes(b"no sound")
    save_wav(tmp_path / "ref.wav", voice("red"), RATE)
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    sounds = [tmp_path / "ref.wav", tmp_path / "broken.wav", *[tmp_path / "ref.wav"] * 10]
    spoken = [SpokenPair(p.id, p.audio, p.target_text, "", sound) for p, sound in zip(pairs, sounds, strict=True)]
    arm = Arm(model_arm(Translator()).translate, lambda waves: [[1, 2, 3, 4] for _ in waves])
    table = run_translation(spoken, {"good": arm}, FakeJudge(), TranslationOptions(tmp_path / "o", "t"))[0]
    assert {row[0]: row[-1] for row in table.rows} == {"reference": "1", "good": "1"}
    _, items = read_results(tmp_path / "o" / "translation.jsonl")
    good = {item["id"]: item for item in items if item["arm"] == "good"}
    assert good["0"]["transcript"] == "" and good["0"]["word_edits"] == good["0"]["words"]
    assert "reference_units" not in good["1"] and good["1"]["transcript"] == SENTENCES[1]


def test_ids_that_are_paths_are_saved_below_the_folder_of_their_arm(pairs, tmp_path):
    """Ids of `echox prepare transcribe` are paths; nothing is lost for that, nor written elsewhere."""
    ids = ["speaker/1", "../../../away", "plain"]
    some = [SpokenPair(id, pair.audio, pair.target_text) for id, pair in zip(ids, pairs, strict=False)]
    arms = {"good": model_arm(Translator())}
    table = run_translation(some, arms, FakeJudge(), TranslationOptions(tmp_path / "x" / "o", "t"))[0]
    assert table.rows[0][-1] == "0" and float(table.rows[0][2].split()[0]) == pytest.approx(100)
    (folder,) = (tmp_path / "x" / "o" / "audio").iterdir()
    assert len(list(folder.glob("*.wav"))) == 3 and (folder / "plain.wav").is_file()


def test_other_settings_and_other_pairs_are_refused(pairs, tmp_path):
    arms = {"good": model_arm(Translator())}
    run_translation(pairs, arms, FakeJudge(), TranslationOptions(tmp_path / "o", "t", {"beams": 2}, 3))
    run_translation(
        pairs, arms, FakeJudge(), TranslationOptions(tmp_path / "o", "t", {"beams": 2})
    )  # more of the same pairs
    with pytest.raises(ConfigError, match="beams was 2 and is 5"):
        run_translation(pairs, arms, FakeJudge(), TranslationOptions(tmp_path / "o", "t", {"beams": 5}))
    with pytest.raises(ConfigError, match="questions_mark was"):
        run_translation(pairs[1:], arms, FakeJudge(), TranslationOptions(tmp_path / "o", "t", {"beams": 2}))


def test_words_of_other_languages_are_not_normalised_as_english(pairs, tmp_path):
    heard = Translator(lambda text: f"um {text}")  # a filler in English, a word in Portuguese
    rows = {}
    for language in ("en", "pt"):
        options = TranslationOptions(tmp_path / language, "t", {"language": language})
        (table, *_) = run_translation(pairs, {"m": model_arm(heard)}, FakeJudge(), options)
        rows[language] = (table.rows[0][4].split()[0], "WER: whisper-basic" in table.note)
    assert rows["en"] == ("0.0", False) and float(rows["pt"][0]) > 5 and rows["pt"][1]


def test_every_option_that_changes_results_is_a_setting(pairs, tmp_path, monkeypatch):
    def load_judge(name, device, window, language, translates=False):
        return FakeJudge(f"{name} {window} {language} {translates}")

    monkeypatch.setattr("echox.eval.judges.load_judge", load_judge)
    monkeypatch.setattr("echox.eval.model_under_test.marks_of", lambda names: " ".join(names))
    monkeypatch.setattr("echox.eval.tasks.translation.load_arms", lambda *given: {"m": model_arm(Translator())})
    lines = ["id\taudio\ttarget_audio\tsource_text\ttarget_text"]
    (tmp_path / "p.tsv").write_text(
        "\n".join([*lines, *(f"{p.id}\t{p.audio}\t\t\t{p.target_text}" for p in pairs)]) + "\n"
    )
    options = "--beam 3 --dtype float32 --cascade w --source-language fr --language de --unit-encoder e --model m"
    call("translation", "--pairs", tmp_path / "p.tsv", "--out", tmp_path / "o", *options.split())
    settings, _ = read_results(tmp_path / "o" / "translation.jsonl")
    expected = {"beams": 3, "dtype": "float32", "cascade": "w 30 fr True", "voice": "mini", "language": "de"}
    expected |= {"judge": "whisper-base 15 de False", "unit_encoder": "e", "weights": "m", "device": "cpu"}
    expected |= {"wer_normaliser": "whisper-basic, jiwer"}
    assert expected.items() <= settings.items()


def test_the_reference_speech_is_the_ceiling_and_a_cascade_says_its_text(pairs, tmp_path):
    import soundfile

    with_speech = []
    for pair in pairs:
        soundfile.write(tmp_path / f"{pair.id}.ref.wav", voice(pair.target_text), RATE, subtype="FLOAT")
        with_speech.append(SpokenPair(pair.id, pair.audio, pair.target_text, "", tmp_path / f"{pair.id}.ref.wav"))

    class Recogniser:
        name = "translating"

        def transcribe(self, waves):
            return ["the house"] * len(waves)

    class Assistant:
        def say(self, text):
            reply = Reply(text, voice(text))
            reply.units = []
            return reply

    arms = {"cascade": cascade_arm(Recogniser(), Assistant())}
    tables = run_translation(with_speech, arms, FakeJudge(), TranslationOptions(tmp_path / "o", "t"))
    rows = {row[0]: row for row in tables[0].rows}
    assert float(rows["reference"][2].split()[0]) == pytest.approx(100) and float(rows["cascade"][2].split()[0]) < 20
    assert rows["reference"][6] == rows["reference"][7] == "-" and int(rows["cascade"][8]) > 10


def test_units_are_scored_against_those_of_the_reference_speech(pairs, tmp_path):
    spoken = [SpokenPair(pair.id, pair.audio, pair.target_text, "", pair.audio) for pair in pairs]

    def arm(units):
        return Arm(
            lambda path: Spoken("", "red", voice("red"), RATE, units), lambda waves: [[1, 2, 3, 4, 5, 6] for _ in waves]
        )

    arms = {"same": arm([1, 2, 3, 4, 5, 6]), "half": arm([1, 2, 3, 4, 9, 8]), "none": Arm(arm([1]).translate)}
    table = run_translation(spoken, arms, FakeJudge(), TranslationOptions(tmp_path / "o", "t"))[0]
    found = {row[0]: row[table.head.index("unit BLEU")] for row in table.rows}
    assert found["same"] == "100.0" and 20 < float(found["half"]) < 70 and found["none"] == found["reference"] == "-"


def test_a_model_that_shares_minis_voice_writes_references_in_its_units(tmp_path):
    from types import SimpleNamespace

    from echox.hub import resolve_model

    mini = resolve_model("mini")
    wave = (0.3 * np.sin(np.arange(8000) ** 1.5 / 90)).astype(np.float32)
    (units,) = units_of(SimpleNamespace(model=SimpleNamespace(voice=mini)))([wave])
    centroids, meta = load_centroids(mini / "units")
    (states,) = SpeechEncoder.from_pretrained(mini / "encoder").encode([wave], (meta.layer,))
    (alone,) = extract(lambda _: [states[meta.layer].half().numpy()], centroids, [wave])
    assert units == alone.ids.tolist() and len(set(units)) > 1
    assert units_of(SimpleNamespace(model=SimpleNamespace())) is None
    textless = write_translator(tmp_path / "own")
    assert units_of(SimpleNamespace(model=SimpleNamespace(voice=textless))) is None
