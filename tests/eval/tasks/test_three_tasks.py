"""Speech, text and words measured on tiny joint models; probes of spaces that are one, and of spaces that are two."""

import csv
import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from echox import SpeechTranslator
from echox.audio import save_wav
from echox.cli import app
from echox.data.pairs import read_pairs
from echox.errors import ConfigError, InputError
from echox.eval.model_under_test import marks_of
from echox.eval.questions import chosen
from echox.eval.report.page import tables_of
from echox.eval.report.plots import draw_spaces
from echox.eval.results import read_results
from echox.eval.scorers.states import Spaces, length_probe, modality_probe, plane, retrieval, umap_plane
from echox.eval.scorers.texts import BASIC, NORMALISER
from echox.eval.tables import over_seeds
from echox.eval.tasks.translation import TASKS, TranslationOptions, read_spaces, run_tasks
from echox.generate.joint import JointTranslator
from echox.models.hearing import Hearing
from echox.models.speech_translator import SpeechTranslatorModel, TranslatorConfig
from echox.text.pieces import Pieces
from echox.train.toy import PAIRS, toy_translation, write_encoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A joint model folder and a text-only one, of random weights."""
    root = tmp_path_factory.mktemp("joint")
    pieces = Pieces.train([*PAIRS, *map(toy_translation, PAIRS)], 44)
    for name, width in (("joint", 16), ("text", 0)):
        torch.manual_seed(0)
        sizes = {"width": 16, "ffn": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "max_positions": 64}
        SpeechTranslatorModel(TranslatorConfig(vocab_size=44, encoder_width=width, **sizes)).save(
            root / name / "translator"
        )
        pieces.save(root / name / "translator")
        if width:
            write_encoder(root / name / "encoder")
        head = {
            "model_type": "echox_translator",
            "kind": "joint",
            "source": "en",
            "target": "xx",
            "encoder_layer": 2 if width else 0,
        }
        (root / name / "config.json").write_text(json.dumps(head | {"beams": 2}))
    return root


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    with (root / "pairs.tsv").open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["id", "audio", "target_audio", "source_text", "target_text"])
        for number, text in enumerate(PAIRS[:12]):
            time = np.arange(8000 + 640 * number) / 16_000
            save_wav(
                root / f"p{number}.wav",
                (0.3 * np.sin(2 * np.pi * (200 + 40 * number) * time)).astype(np.float32),
                16_000,
            )
            table.writerow([f"p{number}", f"p{number}.wav", "", text, toy_translation(text)])
    return root / "pairs.tsv"


class Knowing(JointTranslator):
    """Translates rightly, and hears what it is told that it hears."""

    heard = ""

    def translate_texts(self, texts, wanted):
        from echox.generate.translation import Said

        return [Said(None, toy_translation(text)) for text in texts]

    def transcribe(self, waves, beam=1):
        return [self.heard for _ in waves]


def knowing(heard):
    model = SpeechTranslatorModel(
        TranslatorConfig(vocab_size=8, width=4, ffn=4, heads=1, encoder_layers=0, decoder_layers=0, encoder_width=4)
    )
    found = Knowing(model, None, None)
    found.heard = heard
    return found


def test_scores_are_those_of_what_was_written(pairs, tmp_path):
    found = read_pairs(pairs, None)
    options, tasks = TranslationOptions(tmp_path, "pairs.tsv"), ("mt", "asr", "cascade")
    tables, _ = run_tasks(found, {"good": knowing(found[0].source_text)}, tasks, options)
    rows = {row[0]: row for row in tables[0].rows}
    assert rows["good mt"][2] == "100.00" and float(rows["good cascade"][2]) < 60
    lines = [json.loads(line) for line in (tmp_path / "tasks.jsonl").read_text().splitlines()]
    assert len(lines) == 1 + 3 * len(found)
    again, _ = run_tasks(found, {"good": knowing("nothing")}, tasks, options)  # everything is there already
    assert again[0].rows == tables[0].rows
    assert tables_of(*read_results(tmp_path / "tasks.jsonl")) == tables  # as `echox eval report` shows it
    with pytest.raises(InputError, match="three tasks need both"):
        run_tasks([type(found[0])("x", found[0].audio, "hola")], {"good": knowing("")}, tasks, options)


def test_a_recording_that_cannot_be_read_stops_nothing(pairs, tmp_path):
    found = read_pairs(pairs, None)
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    found[0] = replace(found[0], audio=tmp_path / "broken.wav")
    model = {"good": knowing(found[0].source_text)}
    tables, _ = run_tasks(found, model, ("mt", "asr"), TranslationOptions(tmp_path, "p"))
    assert {row[0]: row[-1] for row in tables[0].rows} == {"good mt": "0", "good asr": "1"}


def test_words_are_counted_by_the_language_that_a_model_hears(folder, pairs, tmp_path):
    found, options = read_pairs(pairs, None), TranslationOptions(tmp_path, "p", limit=1)
    model = knowing(found[0].source_text)
    assert NORMALISER in run_tasks(found, {"english": model}, ["asr", "mt"], options)[0][0].note
    model.language = "es"
    tables, _ = run_tasks(found, {"spanish": model}, ["asr", "mt"], replace(options, out=tmp_path / "es"))
    assert BASIC in tables[0].note and read_results(tmp_path / "es" / "tasks.jsonl")[0]["wer_normaliser"] == BASIC
    assert SpeechTranslator.load(str(folder / "joint")).model.language == "en"


def test_spaces_without_a_readable_recording_are_refused_in_a_sentence(pairs, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    found = [replace(pair, audio=tmp_path / "broken.wav") for pair in read_pairs(pairs, None)]
    with pytest.raises(InputError, match="0 utterances"):
        read_spaces(found, knowing(""))


def test_the_command_measures_models_against_the_first(folder, pairs, tmp_path):
    words = [
        "eval",
        "translation",
        "--pairs",
        str(pairs),
        "--tasks",
        "st,mt,asr,cascade,spaces",
        "--out",
        str(tmp_path),
    ]
    models = ["--model", str(folder / "text"), "--model", str(folder / "joint")]
    done = CliRunner().invoke(app, words + models)
    assert done.exit_code == 0, done.output
    for name in (
        "text mt",
        "joint st",
        "joint mt",
        "joint asr",
        "joint cascade",
        "Against the first model",
        "modality probe",
    ):
        assert name in done.output
    assert "text st" not in done.output and "nrefs:1" in done.output
    assert (tmp_path / "spaces.svg").read_text().startswith("<svg")
    settings = json.loads((tmp_path / "tasks.jsonl").read_text().splitlines()[0])
    assert (settings["dtype"], settings["beams"], settings["device"]) == ("own", "own", "cpu")
    assert settings["weights"] == marks_of([str(folder / "text"), str(folder / "joint")])  # others are measured anew
    words[words.index("st,mt,asr,cascade,spaces")], words[-1] = "mt,spaces", str(tmp_path / "text")
    done = CliRunner().invoke(app, [*words, *models[:2]])  # nobody hears: there are no spaces
    assert done.exit_code == 0 and "text mt" in done.output and "modality" not in done.output, done.output


def test_seeds_of_an_arm_are_put_together():
    numbers = {"none-0 st": 20.0, "none-1 st": 22.0, "s_align-0 st": 21.0, "mini-st st": 30.0}
    (table,) = over_seeds(numbers, "")
    assert table.rows == (("none st", "2", "21.00", "20.00", "22.00"), ("s_align st", "1", "21.00", "21.00", "21.00"))
    assert not over_seeds({"none-0 st": 20.0, "mini-st st": 30.0}, "")


def test_unknown_tasks_are_refused():
    with pytest.raises(ConfigError, match="--tasks 'st, sing': choose from st, mt"):
        chosen("st, sing", TASKS, "--tasks")


def spaces(shift, noise=0.1, n=60):
    rng = np.random.default_rng(0)
    text = rng.normal(size=(n, 8))
    speech = text + noise * rng.normal(size=(n, 8))
    speech[:, 0] += shift
    return Spaces(speech, text, rng.integers(5, 20, n), rng.integers(5, 20, n))


def test_the_probe_tells_two_spaces_from_one():
    apart, together = modality_probe(spaces(20.0)), modality_probe(spaces(0.0))
    assert apart.value > 0.99 and 0.3 < together.value < 0.7 and apart.n == 60
    assert 0.3 < length_probe(spaces(0.0)).value < 0.7
    longer = spaces(0.0)
    longer.speech_lengths_N[:] += 40
    assert length_probe(longer).value > 0.99


def test_retrieval_finds_points_and_not_spaces():
    assert retrieval(spaces(0.0)).value == 1.0
    assert retrieval(spaces(0.0, noise=50.0)).value < 0.2
    with pytest.raises(InputError, match="at least 10 pairs"):
        spaces(0.0, n=4)


def test_the_plane_shows_what_parts_them():
    speech, text = spaces(20.0).placed(plane)
    assert speech.shape == text.shape == (60, 2)
    assert abs(speech[:, 0].mean() - text[:, 0].mean()) > 15


def test_umap_is_drawn_beside_the_principal_axes_where_it_is_installed(monkeypatch):
    asked, told = [], []

    class Umap:
        def __init__(self, **settings):
            asked.append(settings)

        def fit_transform(self, states):
            return states[:, 1:3]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap))
    found = spaces(20.0)
    speech, text = found.placed(umap_plane())
    assert np.array_equal(speech, found.speech_NH[:, 1:3]) and np.array_equal(text, found.text_NH[:, 1:3])
    both = draw_spaces([("a", found), ("b", found)], told.append)
    assert told == [] and asked == [{"n_components": 2, "random_state": 0}] * 3
    monkeypatch.setitem(sys.modules, "umap", None)
    alone = draw_spaces([("a", found), ("b", found)], told.append)
    assert len(told) == 1 and "principal axes alone" in told[0] and "pip install umap-learn" in told[0]
    heights = [float(re.search(r'height="([\d.]+)pt"', one)[1]) for one in (both, alone)]
    assert heights[0] > 1.9 * heights[1]


def test_the_model_folder_is_a_translator(folder):
    assert isinstance(SpeechTranslator.load(str(folder / "joint")).model.encoder, Hearing)
