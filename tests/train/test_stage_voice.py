"""Stages teacher and voice at toy size: texts in, a vocoder folder out that speaks, fits durations."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from echox.data.latents import Utterances
from echox.data.sentences import Sentence, read_sentences
from echox.errors import ConfigError, InputError
from echox.generate.parts import load_vocoder
from echox.models.io import save_part
from echox.models.latent_vocoder import LatentVocoder
from echox.models.llm import load_embeddings, load_tokenizer, text_of_pieces, token_pieces
from echox.models.t2c import T2CBatch, TextToCodec
from echox.models.t2c_config import T2CConfig
from echox.prepare.teachers import Said
from echox.text.prompt import encode
from echox.text.segmenter import cut_text
from echox.train.stage_t2c import SpokenSentences
from echox.train.stage_t2c import build as build_t2c
from echox.train.stage_teacher import SPACED, Texts, WrittenStates, chosen_texts, join
from echox.train.stage_voice import build, fitting_stretch
from echox.train.stages import load_recipe, run_recipe
from echox.units.sequence import deduplicate
from echox.units.tokenizer import UnitTokenizer
from tests.toy_model import RECIPES, run_stages


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return run_stages(tmp_path_factory.mktemp("voice"), ("units", "t2c", "teacher", "voice"))


@pytest.fixture
def world(made, monkeypatch):
    monkeypatch.chdir(made.parents[1])
    return made


def test_teacher_writes_what_its_decoder_was_given(world):
    utterances = Utterances(world / "teacher")
    assert (world / "teacher" / "decoder" / "model.safetensors").exists()
    assert len(sorted((world / "teacher").glob("shard-*.npz"))) == 2
    for index in range(len(utterances)):
        latents, _ = utterances.rows(index, 0, 1 << 20)
        assert len(latents) % 8 == 0 and abs(utterances.frames(index) - len(latents) * 5 / 8) <= 1
    before = (world / "teacher" / "shard-00001.npz").stat().st_mtime_ns
    run_recipe(RECIPES / "teacher.yaml")  # nothing is left to do
    assert (world / "teacher" / "shard-00001.npz").stat().st_mtime_ns == before


def test_voice_speaks_with_the_teachers_own_decoder(world):
    vocoder = load_vocoder(world / "voice" / "final").eval()
    assert isinstance(vocoder, LatentVocoder) and vocoder.config.duration_stretch > 0
    wave = vocoder.speak([1, 2, 3, 4, 5])
    assert len(wave) and wave.dtype == np.float32
    for name, value in load_file(world / "teacher" / "decoder" / "model.safetensors").items():
        torch.testing.assert_close(vocoder.decoder.state_dict()[name].half(), value, atol=0, rtol=0)


def test_training_learns_the_latents(world):
    stage = build(load_recipe(RECIPES / "voice.yaml"))
    (player,) = stage.players
    optimizer = torch.optim.AdamW(stage.model.parameters(), lr=1e-2)
    losses = []
    for step in range(40):
        loss = player.loss(stage.model(stage.batches[0]), step)  # the very same: it must be learnt
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(loss.numbers()["latents"])
    assert losses[-1] < 0.7 * losses[0]
    assert not any(name.startswith("vocoder.decoder.") for names in stage.names() for name in names)


def test_held_out_speech_stays_as_long_as_it_was(world):
    stage = build(load_recipe(RECIPES / "voice.yaml"))
    vocoder, utterances = stage.model.vocoder.eval(), stage.batches.utterances
    with torch.no_grad():
        vocoder.durations.head.weight.zero_()
        vocoder.durations.head.bias.copy_(-0.3 * torch.arange(len(vocoder.durations.head.bias)))  # some three frames
    vocoder.config.duration_stretch = fitting_stretch(vocoder, utterances, 2)
    true = said = 0
    for index in range(2):
        units = torch.unique_consecutive(torch.from_numpy(utterances.unit_rows(index)))
        said += int(vocoder.predict_durations(units[None]).sum())
        true += utterances.frames(index)
    assert abs(said / true - 1) < 0.05


def test_what_is_held_out_is_measured_a_batch_at_a_time(world, monkeypatch):
    found, sizes = [], []
    for size in (1, 3):
        stage = build(load_recipe(RECIPES / "voice.yaml", ["voice.held_out=3", f"voice.batch_size={size}"]))
        collate = stage.batches.collate
        monkeypatch.setattr(
            stage.batches, "collate", lambda places, to=collate: sizes.append(len(places)) or to(places)
        )
        found.append(stage.evaluate())
    assert sizes == [1, 1, 1, 3]  # with states and without from one reading
    for name in set(found[0]) - {"loss", "stateless/loss"}:  # a sum of means over several things
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-4), name


def test_the_voice_without_states_is_measured_where_it_learns(world):
    stage = build(load_recipe(RECIPES / "voice.yaml"))
    torch.nn.init.ones_(stage.model.vocoder.embedding.states.weight)
    both = stage.evaluate()
    torch.nn.init.zeros_(stage.model.vocoder.embedding.states.weight)
    torch.nn.init.zeros_(stage.model.vocoder.durations.embedding.states.weight)
    deaf = stage.evaluate()
    assert both["stateless/loss"] == pytest.approx(deaf["loss"]) and both["loss"] != pytest.approx(deaf["loss"])
    assert deaf["stateless/loss"] == pytest.approx(deaf["loss"])
    without = build(load_recipe(RECIPES / "voice.yaml", ["voice.stateless=0"])).evaluate()
    assert not any(name.startswith("stateless/") for name in without)


def test_settings_that_do_not_fit_are_named(world, tmp_path):
    with pytest.raises(ConfigError, match="num_units"):
        build(load_recipe(RECIPES / "voice.yaml", ["voice.model.num_units=1"]))
    with pytest.raises(ConfigError, match=r"voice.model.state_width follows from out/debug/teacher: leave it out"):
        build(load_recipe(RECIPES / "voice.yaml", ["voice.model.state_width=4"]))
    for wrong in ('{"id": "b"}', '{"id": 7, "text": "No."}'):
        (tmp_path / "texts.jsonl").write_text('{"id": "a", "text": "Yes."}\n' + wrong + "\n")
        with pytest.raises(InputError, match="line 2 has no `id` or no `text`"):
            chosen_texts([Texts(path=tmp_path / "texts.jsonl")])


def test_any_prefix_of_the_texts_holds_its_share_of_each_source(tmp_path):
    for name, count in (("many", 400), ("few", 20)):
        (tmp_path / name).write_text("".join(f'{{"id": "{name}{i}", "text": "{name}"}}\n' for i in range(count)))
    texts = chosen_texts([Texts(path=tmp_path / "many", take=20), Texts(path=tmp_path / "few")])
    assert [texts[:start].count("few") for start in (10, 20, 40)] == [5, 10, 20]


def test_a_voice_goes_on_from_a_trained_one(world, tmp_path):
    trained = load_vocoder(world / "voice" / "final")
    stage = build(load_recipe(RECIPES / "voice.yaml", [f"start={world / 'voice' / 'final'}"]))
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(stage.model.vocoder.state_dict()[name], value.float(), atol=0, rtol=0)
    shutil.copytree(world / "voice" / "final", tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["decoder"]["layers"] += 1
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="another decoder"):
        build(load_recipe(RECIPES / "voice.yaml", [f"start={tmp_path / 'other'}"]))


@pytest.mark.parametrize("past_words", [0, 4])
def test_states_are_those_in_which_the_t2c_writes_the_units(world, tmp_path, past_words):
    """The slow twin: one segment of a text after the other, one unit word after the other."""
    recipe = load_recipe(RECIPES / "teacher.yaml")
    t2c, language = TextToCodec.load(world / "t2c" / "final").float().eval(), UnitTokenizer.load(world / "units")
    t2c.config.past_words = past_words
    t2c.save(tmp_path / "t2c")
    phrases = {"first_phrase": 1, "first_longest": 2, "early": 9} if past_words else None
    writer = recipe.writer.model_copy(update={"t2c": tmp_path / "t2c", "phrases": phrases})
    tokenizer, embeddings_VH = load_tokenizer(writer.llm), load_embeddings(writer.llm)
    states_of, said = WrittenStates(writer, recipe.units), read_sentences([world / "teacher"])[:5]
    made, segmenter, first, cuts = states_of(said), states_of.segmenter, 0, 0
    for index, one in enumerate(said):
        expected, past = [], []
        ids = encode(tokenizer, " " * (index % SPACED == 0) + one.text)
        pieces = token_pieces(tokenizer, ids)
        spans = cut_text(pieces, replace(segmenter, early=0) if index % SPACED == 0 else segmenter)
        cuts += len(spans) - 1
        for (start, end), units in zip(spans, one.parts([text_of_pieces(pieces[a:b]) for a, b in spans]), strict=True):
            text, layout = t2c.embed_text(ids[start:end], embeddings_VH), t2c.layout(pieces[start:end])
            words = language.encode(units)
            for count, word in enumerate(words):
                row = T2CBatch([text], [layout], [t2c.framed(words[: count + 1])], [past])
                states_BUW, *_ = t2c.states(row)
                expected += [states_BUW[-1, count].detach()] * len(language.word(word))
            past = t2c.past_of([*past, *words], text_of_pieces(pieces[start:end]))
        frames = len(one.units_T)
        of_T, first = made["state_of"][first : first + frames], first + frames
        expected_TW = np.repeat(
            torch.stack(expected).numpy(), deduplicate(one.units_T.astype(np.int64)).durations, axis=0
        )
        np.testing.assert_allclose(made["states"][of_T].astype(np.float32), expected_TW, atol=3e-3)
    assert (cuts > 1) == (past_words > 0)
    if not past_words:
        utterances = Utterances(world / "teacher")
        np.testing.assert_array_equal(
            utterances.state_rows(1), made["states"][made["state_of"]][len(said[0].units_T) :][: len(said[1].units_T)]
        )


def test_a_folder_of_before_words_were_timed_is_refused(world, tmp_path):
    old = shutil.copytree(world / "teacher", tmp_path / "teacher")
    with np.load(old / "shard-00000.npz") as data:
        kept = {name: data[name] for name in data if name not in ("texts", "begins", "word_offsets")}
    np.savez(old / "shard-00000.npz", **kept)
    with pytest.raises(ConfigError, match="was made before words were timed: delete"):
        run_recipe(RECIPES / "teacher.yaml", [f"out={old}"])


def test_the_teacher_says_where_words_begin(world):
    """The toy says a letter for eight decoder frames, five units."""
    found = read_sentences([world / "teacher"])
    assert len(found) == len(chosen_texts(load_recipe(RECIPES / "teacher.yaml").texts))
    for one in found:
        words = one.text.split(" ")
        letters = np.cumsum([0, *(len(word) + 1 for word in words[:-1])])
        np.testing.assert_allclose(one.begins, 5 * letters, atol=1)


def test_a_text_of_which_nobody_knows_the_words_has_no_states(world):
    recipe, said = load_recipe(RECIPES / "teacher.yaml"), read_sentences([world / "teacher"])
    one, unknown = said[0], Sentence("", said[1].units_T, np.zeros(0, np.int32))
    states_of, frames = WrittenStates(recipe.writer, recipe.units), len(said[0].units_T)
    known, some, behind = states_of([one]), states_of([one, unknown, unknown]), states_of([unknown, unknown, one])
    assert len(known["states"]) and len(some["states"]) == len(behind["states"]) == len(known["states"])
    assert (some["state_of"][frames:] == -1).all() and (behind["state_of"][:-frames] == -1).all()
    np.testing.assert_array_equal(some["state_of"][:frames], known["state_of"])
    assert len(states_of([unknown])["states"]) == 0


def test_a_t2c_learns_to_go_on_in_a_sentence(world, tmp_path):
    data = "sentences: [out/debug/teacher], units: out/debug/units, held_out: 4, max_cost: 900, max_positions: 700"
    changes = [f"data={{{data}, phrases: {{first_phrase: 1, first_longest: 2, early: 9}}}}", f"out={tmp_path / 't2c'}"]
    more = ["start=out/debug/t2c/final", "model={}", "keep_start=0.5", f"out={tmp_path / 'more'}"]
    for options in (changes, [*changes, *more]):
        assert TextToCodec.load(run_recipe(RECIPES / "t2c.yaml", options)).config.past_words == 12
    model = TextToCodec.load(tmp_path / "t2c" / "final").float()
    rng, recipe = np.random.default_rng(0), load_recipe(RECIPES / "t2c.yaml", changes)
    stage, spoken = build_t2c(recipe), SpokenSentences(recipe, recipe.data.units, load_embeddings(recipe.llm))
    batch, said = (
        spoken.batch(model, [0, 1], rng),
        [deduplicate(one.units_T.astype(np.int64)).ids for one in spoken.sentences],
    )
    ends = [n for n, past in enumerate(batch.past) if not past][1:] or [len(batch.past)]
    words = [word for row in batch.words[: ends[0]] for word in row[1:-1]]
    assert UnitTokenizer.load(world / "units").decode(words) == list(said[0])  # no unit is lost or said twice
    assert ends[0] > 1 and batch.past[1] == batch.words[0][1:-1][-12:]
    assert stage.evaluate()["loss"] > 0
    writer = load_recipe(RECIPES / "teacher.yaml").writer.model_copy(update={"t2c": tmp_path / "t2c" / "final"})
    with pytest.raises(ConfigError, match="reads 12 past words: give writer.phrases"):
        WrittenStates(writer, recipe.data.units)
    for options, problem in (
        (["data.corpora=[a]"], "data.sentences stands in place of data.corpora"),
        (["data.units=null"], "data.sentences needs data.units"),
        (["model.past_words=3"], "a past is learnt from whole sentences: set data.past_words"),
        (["data={units: out/debug/units}"], "there is nothing to read: give data.corpora"),
        (["data.past_words=65"], "less than or equal to 64"),
    ):
        with pytest.raises(ConfigError, match=problem):
            build_t2c(load_recipe(RECIPES / "t2c.yaml", [*changes, *options]))


def test_a_voice_that_reads_units_alone_learns_to_read_states(world):
    run_recipe(RECIPES / "teacher.yaml", ["writer=null", "out=out/debug/plain"])
    run_recipe(RECIPES / "voice.yaml", ["voice.teacher=out/debug/plain", "out=out/debug/plain_voice"])
    start = world / "plain_voice" / "final"
    stage, before = build(load_recipe(RECIPES / "voice.yaml", [f"start={start}"])), load_vocoder(start).eval()
    assert before.state_width == 0
    vocoder, states_UW = stage.model.vocoder.eval(), torch.randn(5, 32)
    units = [1, 2, 3, 4, 5]
    np.testing.assert_allclose(vocoder.speak(units, states_UW=states_UW), before.speak(units), atol=1e-6)
    vocoder.train()
    (player,) = stage.players
    player.loss(stage.model(stage.batches[0]), 0).total.backward()
    for embedding in (vocoder.embedding, vocoder.durations.embedding):
        assert embedding.states.weight.grad.abs().max() > 0
    options = [f"start={world / 'voice' / 'final'}", "voice.teacher=out/debug/plain"]
    with pytest.raises(ConfigError, match="holds no states: they do not fit"):
        build(load_recipe(RECIPES / "voice.yaml", options))


def test_states_need_the_units_that_their_writer_learnt(world, tmp_path):
    part = shutil.copytree(world / "t2c" / "final", tmp_path / "t2c")
    other = TextToCodec(T2CConfig(**json.loads((part / "config.json").read_text()) | {"unit_vocab_size": 9}))
    save_part(part, other)
    with pytest.raises(ConfigError, match="writes other unit words than"):
        run_recipe(
            RECIPES / "teacher.yaml", [f"writer={{t2c: {part}, llm: out/debug/llm}}", f"out={tmp_path / 'teacher'}"]
        )


def test_sentences_are_joined_up_to_a_length():
    begins = np.array([0, 9])
    said = [
        Said(np.full((n, 2), n), np.zeros((n, 2)), np.zeros(n * 300, np.float32), f"It {n}", begins)
        for n in (40, 30, 90, 20)
    ]
    assert [len(one.latents_FL) for one in join(said, 1.0, 24_000)] == [70, 90, 20]
    assert [len(one.latents_FL) for one in join(said, 10.0, 24_000)] == [180]
    one = next(join(said, 1.0, 24_000))
    assert one.text == "It 40 It 30" and one.begins.tolist() == [0, 9, 40, 49]
    said[1].begins = begins[:0]  # nobody knows them of one, so of none
    assert not len(next(join(said, 1.0, 24_000)).begins)
