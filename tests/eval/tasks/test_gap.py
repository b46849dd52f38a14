"""The gap benchmark on made-up states whose answer is known, its own word sets, and translation scores."""

from functools import partial

import numpy as np
import pytest
from eval_fakes import call

from echox.audio import save_wav
from echox.errors import ConfigError, InputError
from echox.eval.report.plots import draw_gap
from echox.eval.results import read_results
from echox.eval.scorers.states import measure_view, probe, rotated, word_states
from echox.eval.scorers.texts import bleu, chrf, compare
from echox.eval.tasks.gap import LENGTH_ONLY, available, gap_tables, length_states, read_sets, run_gap, word_speaker

H = 24
SETTINGS = {"model": "m", "sets": 72, "voice": "Ann"}


class Reader:
    """A model whose typed states hold meaning, spoken states sound, echo states both, and units noise."""

    def __init__(self, sets) -> None:
        generator = np.random.default_rng(0)
        self.noise = {word: generator.normal(size=H) for item in sets for word in item}
        self.meaning, self.sound = dict(self.noise), dict(self.noise)
        for item in sets:
            near = 0.3 * generator.normal(size=(2, H))
            self.meaning[item.meaning] = self.noise[item.anchor] + near[0]
            self.sound[item.sound] = self.noise[item.anchor] + near[1]

    def typed_states(self, text):
        return [self._two(self.noise[text]), self._two(self.meaning[text])]

    def spoken_states(self, wave):
        return [self._two(self.sound[str(wave)])]

    def echo_states(self, text):
        return [self._two(np.concatenate([self.sound[text], self.meaning[text]]))]

    def unit_states(self, text):
        return [self._two(self.noise[text] + 50)]  # a large common direction that centring must take off

    @staticmethod
    def _two(state):
        return np.stack([state + 1, state - 1])  # two tokens whose mean is the state


@pytest.fixture(scope="module")
def sets():
    return read_sets()


@pytest.fixture(scope="module")
def reader(sets):
    return Reader([item for item in sets if len({*item}) == 4])


def test_our_word_sets_are_sound(sets):
    assert len(sets) >= 60 and ("hi", "high", "hello") in {item[:3] for item in sets}
    assert all(word == word.lower().strip() and word.isalpha() for item in sets for word in item)
    assert all(len({*item}) == 4 for item in sets) and len({item.anchor for item in sets}) == len(sets)


def test_views_see_what_was_put_into_the_states(sets, reader):
    sources = available(reader, lambda word: word)
    views = {name: measure_view(name, partial(read, reader), sets) for name, (read, _) in sources.items()}
    typed, spoken, units = views["text LLM"], views["S2T LLM"], views["units"]
    sound, meaning, neither, *others = typed["cosines"][1]
    assert meaning > 0.7 > 0.35 > sound and abs(neither) < 0.25 and max(map(abs, others)) < 0.25
    assert spoken["cosines"][0][0] > 0.7 > spoken["cosines"][0][1]
    assert typed["sound_nearer"][1][2] < 0.3 and spoken["sound_nearer"][0][1] > 0.7
    assert max(map(abs, units["cosines"][0])) < 0.3  # raw cosines would be about 1
    assert typed["probes"]["meaning"][1] > 0.85 and spoken["probes"]["sound"][0] > 0.85
    assert 0.3 < units["probes"]["sound"][0] < 0.7 and 0.3 < typed["probes"]["meaning"][0] < 0.7  # chance, not memory
    (table,) = gap_tables(SETTINGS, [typed | {"id": "text LLM"}])
    assert [row[2] for row in table.rows] == ["0 of 1", "1 of 1"]


def test_the_probe_does_not_learn_its_test_sets():
    generator = np.random.default_rng(4)
    states = generator.normal(size=(240, 60))  # far more features than pairs: memorising would give 1.0
    index = np.arange(240).reshape(60, 4)
    assert 0.3 < probe(states, index, 1) < 0.7


def lengths(sets, generator):
    """Returns states in which only a word's length can be read, as a clumsy word list would make them."""
    states, index = [], []
    for _ in sets:
        index.append(range(len(states), len(states) + 4))
        states += [generator.normal(size=4) * 0.01 + size for size in (4, 4, 4, 9)]
    return np.array(states), np.array(index)


def test_the_probe_is_blind_to_what_only_tells_the_classes_words_apart(sets):
    states, index = lengths(sets, np.random.default_rng(3))
    assert 0.3 < probe(states, index, 1) < 0.7 and 0.3 < probe(states, index, 2) < 0.7


def test_negatives_are_the_same_words_rotated_within_their_fold():
    index = np.arange(4 * 14).reshape(14, 4)
    apart = rotated(index, 2, folds=3)
    assert sorted(apart) == sorted(index[:, 2]) and not (apart == index[:, 2]).any()
    rows = {word: row for row, word in enumerate(index[:, 2])}
    assert all(rows[word] % 3 == row % 3 for row, word in enumerate(apart))


def test_length_alone_is_measured_beside_the_views(tmp_path, sets, reader):
    assert length_states("table").tolist() == [[5, 2]] and length_states("hope").tolist() == [[4, 1]]
    (table,) = run_gap(reader, "made up", sets, lambda word: word, tmp_path, "Ann's voice")
    assert table.rows[-1][0].startswith("length alone") and "Ann's voice" in table.note
    assert "cos another's meaning" in table.head
    assert 0.35 < measure_view("", length_states, sets)["probes"]["meaning"][0] < 0.65


def test_the_text_llm_is_read_with_its_adapters_off(tmp_path, sets, reader):
    class Adapted(Reader):
        on, log = True, []

        def typed_states(self, text):
            self.log.append(self.on)
            return super().typed_states(text) if self.on else super().typed_states(text)[:1]

        def without_adapters(self):
            other = Adapted(sets)
            other.on = False
            return other

    model = Adapted(sets)
    (table,) = run_gap(model, "made up", sets, None, tmp_path)
    names = [row[0] for row in table.rows]
    assert names.count("text LLM") == 1 and names.count("text LLM, adapters on") == 2
    assert model.log[0] is False and model.log[-1] is True and model.on


def test_sets_with_a_word_that_has_no_states_are_left_out(sets, reader):
    def read(word):
        return np.zeros((1, 1)) if word in ("high", "sea") else word_states(reader.typed_states(word))

    view = measure_view("units", read, sets)
    (table,) = gap_tables(SETTINGS, [view | {"id": "units"}])
    assert view["sets"] == len(sets) - 2 and table.rows[0][1] == str(view["sets"])
    with pytest.raises(InputError, match="word sets only"):
        measure_view("units", read, sets[:5])


def test_states_are_means_over_tokens():
    assert np.allclose(word_states([np.array([[1.0, 2], [3, 4]]), np.zeros((5, 2))]), [[2, 3], [0, 0]])


def test_the_program_writes_table_figure_and_numbers(tmp_path, sets, reader):
    (tmp_path / "gap.json").write_text('{\n "task": "gap"}')  # an older version's
    (tmp_path / "gap.md").write_text("### Acoustic-semantic gap")
    for _ in range(2):  # its own files are written again
        tables = run_gap(reader, "made up", sets, lambda word: word, tmp_path)
    assert len(tables[0].rows) == 2 + 1 + 1 + 1 + 1
    _, views = read_results(tmp_path / "gap.jsonl")
    assert {view["id"] for view in views} == {"text LLM", "S2T LLM", "echo decoder", "units", LENGTH_ONLY}
    assert draw_gap(views).startswith("<svg") and "made up" in (tmp_path / "gap.md").read_text()
    with pytest.raises(ConfigError, match="no hidden states"):
        run_gap(object(), "mute", sets, None, tmp_path)


def test_the_command_draws_what_it_measured(tmp_path, reader, monkeypatch):
    monkeypatch.setattr("echox.eval.model_under_test.load_subject", lambda choice: (reader, "made up"))
    shown = call("gap", "--out", tmp_path)
    assert "made up" in shown and "length alone" in shown
    assert (tmp_path / "gap.svg").read_text().startswith("<svg")


def test_words_come_from_a_folder_or_the_models_own_voice(tmp_path, sets):
    with pytest.raises(InputError, match="lacks"):
        word_speaker(tmp_path, sets)
    speaker, name = word_speaker(None, sets)
    assert speaker(object()) is None and name == "the model's own voice"
    for word in {word for item in sets for word in item}:
        save_wav(tmp_path / f"{word}.wav", np.sin(np.arange(1600)), 16_000)
    speaker, name = word_speaker(tmp_path, sets)
    assert speaker(object())("hello").shape == (1600,) and name == f"the recordings in {tmp_path.name}"


GOOD = [f"the {word} is on the table near the door" for word in ("cat", "dog", "cup", "hat", "key", "pen")]
BAD = [text.replace("table", "chair").replace("near", "by") for text in GOOD]


def test_translation_scores_carry_their_signatures():
    found = bleu(GOOD, GOOD)
    assert found.score == pytest.approx(100) and "version:" in found.signature and "tok:13a" in found.signature
    assert bleu(BAD, GOOD).score < 60 < chrf(GOOD, GOOD).score
    with pytest.raises(InputError, match="one for each"):
        bleu(GOOD[:2], GOOD)


def test_the_paired_bootstrap_tells_systems_apart():
    found = compare(BAD, GOOD, GOOD)
    assert found["system"] > found["baseline"] and found["p"] < 0.05
