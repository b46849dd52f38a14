"""Echo training's settings, on the toy world: what is kept, what is made anew, who learns."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from echox.data.manifest import read_jsonl, write_manifest
from echox.errors import ConfigError, InputError, ModelError
from echox.generate.parts import load_parts
from echox.models.decoding import Generated
from echox.models.echo import EchoDecoder
from echox.models.llm import Place, load_llm, token_pieces
from echox.models.s2t import SpeechToText
from echox.objectives.t2c import t2c_loss
from echox.train import stage_align, stage_echo, stage_s2t, stage_t2c
from echox.train.checkpoint import trained_state
from echox.train.loop import Run, train
from echox.train.stages import load_recipe, run_recipe
from echox.units.tokenizer import UnitTokenizer
from tests.toy_model import RECIPES, toy_model  # noqa: F401 - a fixture


@pytest.fixture
def stage_of(toy_model, tmp_path, monkeypatch):  # noqa: F811
    """Build the debug echo stage with overrides, in the folder where the toy was made."""
    monkeypatch.chdir(toy_model.parents[2])

    def build(*overrides):
        recipe = load_recipe(RECIPES / "echo.yaml", [f"out={tmp_path / 'echo'}", *overrides])
        return recipe, stage_echo.build(recipe)

    return build


def same(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_a_frozen_llm_says_the_same_in_every_epoch_and_is_asked_once(stage_of):
    recipe, stage = stage_of("train.steps=200")
    size = next(step for step in range(1, 200) if stage.batches.batches.epoch_of(step) == 1)
    asked = []
    pairs = stage.batches.targets.pairs
    stage.batches.targets.pairs = lambda rows: asked.append(len(rows)) or pairs(rows)
    first = [stage.batches[step] for step in range(size)]
    once = sum(asked)
    [stage.batches[step] for step in range(size, 2 * size)]
    assert once > 0 and sum(asked) == once
    stage.batches.kept.clear()
    assert all(same(stage.batches[step].batch.text, first[step].batch.text) for step in range(size))


def test_denoised_states_are_to_be_like_rows_of_the_head(stage_of):
    _, stage = stage_of()
    llm = stage.batches.targets.s2t.llm
    table_VH = llm.get_input_embeddings().weight
    head_VH = llm.get_output_embeddings().weight = torch.nn.Parameter(
        -table_VH.flip(0), requires_grad=False
    )  # not tied
    batch = stage.batches[0]
    pairs = [pair for item in stage.batches.batches[0] for pair in stage.batches.kept[item] if len(pair.words) > 2]
    for pair, goals_NH, embeddings_NH in zip(pairs, batch.goals, batch.embeddings, strict=True):
        assert torch.equal(goals_NH, head_VH[pair.ids]) and torch.equal(embeddings_NH, table_VH[pair.ids])


def test_answers_are_made_anew_when_the_llm_learns(stage_of):
    _, stage = stage_of("train.steps=4", "train_lora=true")
    asked = []
    pairs = stage.batches.targets.pairs
    stage.batches.targets.pairs = lambda rows: asked.append(len(rows)) or pairs(rows)
    stage.batches[0]
    once = sum(asked)
    stage.batches[0]
    assert sum(asked) == 2 * once > 0


def test_forced_states_are_those_under_the_gold_answer(stage_of):
    _, stage = stage_of("text=forced")
    targets, row = stage.batches.targets, replace(stage.batches.rows[0], states_TD=None)
    segments = targets.pairs([row])[0]
    said = [token for pair in segments for token in pair.ids]
    prompt = targets.s2t.row(targets.prompt, [targets.s2t.embed(row.transcript)])
    forced = targets.forced([prompt], [row.answer])[0]
    assert said == forced.ids and len(said) <= len(row.answer)


def test_answers_that_the_llm_gave_need_no_decoding(stage_of):
    _, stage = stage_of()
    targets = stage.batches.targets
    rows = [replace(row, states_TD=None) for row in stage.batches.rows[:3]]
    free = targets.pairs(rows)
    own = [[token for pair in pairs for token in pair.ids] for pairs in free]
    stop = min(targets.stop)
    given = stage_of("text=given")[1].batches.targets.pairs(
        [replace(row, answer=[*ids, stop]) for row, ids in zip(rows, own, strict=True)]
    )
    for a, b in zip(free, given, strict=True):
        assert [pair.ids for pair in a] == [pair.ids for pair in b]
        for one, other in zip(a, b, strict=True):
            torch.testing.assert_close(one.states_NH, other.states_NH, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("rule", ["sum", "released"])
def test_the_llm_learns_too_when_asked_and_the_teacher_never(stage_of, rule):
    recipe, stage = stage_of("train_lora=true", f"weights={{s2t: 1.0, s2t_rule: {rule}}}", "train.steps=2")
    teacher = {name: value.clone() for name, value in stage.batches.targets.t2c.state_dict().items()}
    names = stage.names()[0]
    before = {name: value.clone() for name, value in trained_state(stage.model, names).items()}
    final = train(stage, recipe.train, recipe.out)
    moved = [name for name, value in trained_state(stage.model, names).items() if not torch.equal(before[name], value)]
    for part in ("echo.", "s2t.model.adapter.", "s2t.model.llm."):
        assert any(name.startswith(part) for name in moved), part
    assert not [name for name in before if name.startswith("s2t.model.llm.") and ".lora_" not in name]
    assert all(torch.equal(value, teacher[name]) for name, value in stage.batches.targets.t2c.state_dict().items())
    assert (final / "config.json").exists() and (final / "s2t" / "config.json").exists()


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_what_is_heard_counts_as_the_recipe_says(stage_of, weight):
    recipe, stage = stage_of("train_lora=true", f"ctc_weight={weight}", "negatives=2", "weights={denoising_cap: null}")
    loss = stage.players[0].loss(stage.model(stage.batches[0]), 0)
    parts = {name: float(value) for name, value in loss.parts.items()}
    assert ("s2t/ctc" in parts) == (stage.model.s2t.align is not None) == bool(weight)
    wanted = parts["echo"] + parts["denoising"] + parts["s2t/ce"] + weight * parts.get("s2t/ctc", 0.0)
    assert float(loss.total.detach()) == pytest.approx(wanted, rel=1e-5)
    if weight:
        assert 1 <= len(stage.model.s2t.align.train().classes(torch.tensor([0]))) <= 3  # its own and the negatives


def gradients(stage, recipe):
    """What the loss of the first batch sends to every trained parameter."""
    run = Run(stage, recipe.train)
    run.let_move(run.trained)
    stage.players[0].loss(stage.model(stage.batches[0]), 0).total.backward()
    return {name: value.grad for name, value in run.parameters.items() if value.grad is not None and value.grad.any()}


def test_the_echo_loss_reaches_the_llm_when_asked(stage_of):
    without_s2t = ("train_lora=true", "weights={s2t: 0.0}")
    recipe, stage = stage_of(*without_s2t, "echo_moves_llm=true")
    parts = {name.split(".")[0] for name in gradients(stage, recipe)}
    assert parts == {"echo", "s2t"} and all(
        ".lora_" in n or "adapter" in n for n in gradients(stage, recipe) if n[:3] == "s2t"
    )
    with pytest.raises(ConfigError, match="trains nothing"):
        stage_of(*without_s2t)
    with pytest.raises(ConfigError, match="set train_lora too"):
        stage_of("echo_moves_llm=true")


@pytest.mark.parametrize("how", ["text=forced", "text=given", "train_lora=true"])
def test_what_learns_from_gold_answers_needs_them(how):
    stage_echo.check_settings(load_recipe(RECIPES / "echo.yaml", [how]))
    with pytest.raises(ConfigError, match=r"need the gold answers: name the JSONL in data\.answers"):
        stage_echo.check_settings(load_recipe(RECIPES / "echo.yaml", [how, "data.answers=null"]))


def test_states_of_the_second_pass_are_those_of_the_answer(stage_of):
    _, stage = stage_of("train_lora=true", "echo_moves_llm=true")
    batch = stage.batches[0]
    stage.model.eval()
    again_BLH = stage.model.s2t.model(batch.again).hidden_BLH
    for (row, first, end), states_NH in zip(batch.spans, batch.batch.text, strict=True):
        torch.testing.assert_close(again_BLH[row, first:end], states_NH, atol=2e-4, rtol=1e-3)


def test_speech_that_was_cut_off_has_no_end(stage_of, monkeypatch):
    _, stage = stage_of()
    targets, eos = stage.batches.targets, stage.batches.targets.t2c.config.eos_token_id
    monkeypatch.setattr(targets.t2c, "generate", lambda texts, *_, past: [Generated([3, 4], [])] * len(texts))
    assert all(
        pair.words == [targets.t2c.config.bos_token_id, 3, 4, eos] for pair in targets.pairs(stage.batches.rows[:1])[0]
    )
    monkeypatch.setattr(targets.t2c, "limit", lambda layout: 2)
    assert all(pair.words[-1] == 4 for pair in targets.pairs(stage.batches.rows[:1])[0])


def test_targets_and_batches_go_on_in_a_sentence_where_t2c_does(stage_of):
    """The slow twin: the segments of one answer, said one after the other."""
    recipe, stage = stage_of("text=given", "phrases={first_phrase: 1, first_longest: 2, early: 9}")
    targets = stage.batches.targets
    t2c, rows = targets.t2c, stage.batches.rows[:3]
    for count in (0, 5):
        t2c.config.past_words, pasts = count, []
        answers = targets.pairs(rows)
        for pairs in answers:
            past = []
            for pair in pairs:
                ids, pieces = targets.read(pair)
                text_NH, layout = targets.embed(ids), t2c.layout(pieces)
                (said,) = t2c.generate([text_NH], [layout], recipe.max_unit_words or None, past=[past])
                assert pair.words[1 : 1 + len(said.ids)] == said.ids and pair.past == past
                pasts.append(past)
                past = t2c.past_of([*past, *said.ids], "".join(pair.pieces))
        assert bool(max(map(len, pasts))) == bool(count)
        batch = stage.batches.collate(rows, answers).batch
        assert batch.past == [past for past, pair in zip(pasts, sum(answers, []), strict=True) if len(pair.words) > 2]


class Killed:
    """Batches of a run that dies before step 3."""

    def __init__(self, batches):
        self.batches = batches

    def __getitem__(self, step):
        if step == 3:
            raise KeyboardInterrupt
        return self.batches[step]


def test_a_killed_run_ends_with_the_same_weights(stage_of, tmp_path):
    schedule = ("train.steps=5", "train.save_every=2")
    recipe, stage = stage_of(*schedule, f"out={tmp_path / 'whole'}")
    train(stage, recipe.train, recipe.out)
    half, first = stage_of(*schedule, f"out={tmp_path / 'half'}")
    first.batches = Killed(first.batches)
    with pytest.raises(KeyboardInterrupt):
        train(first, half.train, half.out)
    assert not (half.out / "final").exists()
    _, second = stage_of(*schedule, f"out={tmp_path / 'half'}")
    train(second, half.train, half.out)
    resumed = second.model.state_dict()
    for name, value in stage.model.state_dict().items():
        assert torch.equal(resumed[name], value), name


SAID_BY_THE_VOICE = (
    "voiced={corpora: [out/debug/data/assistant], frames: [out/debug/units/frames/assistant], units: out/debug/units}"
)


def test_a_segment_that_the_voice_said_has_its_units(stage_of):
    _, stage = stage_of(SAID_BY_THE_VOICE)
    targets = stage.batches.targets
    _, without = stage_of()
    pairs, t2c = targets.pairs(stage.batches.rows[:1])[0], without.batches.targets.pairs(stage.batches.rows[:1])[0]
    assert [pair.words for pair in pairs] == [pair.words for pair in t2c]  # nobody said these
    wanted = targets.t2c.framed([3, 4, 5])
    targets.voiced["".join(pairs[0].pieces).strip()] = wanted
    assert targets.pairs(stage.batches.rows[:1])[0][0].words == wanted
    words = list(targets.voiced.values())
    bos, eos = targets.t2c.config.bos_token_id, targets.t2c.config.eos_token_id
    assert len(words) > 5 and all(row[0] == bos and row[-1] == eos for row in words)


def test_what_the_decoder_reads_is_a_setting(stage_of):
    recipe, stage = stage_of("keep_decoder=true", "tokens=true")
    teacher = {name: value.clone() for name, value in stage.batches.targets.t2c.state_dict().items()}
    assert stage.names()[0] and all(name.startswith(("echo.denoise", "echo.gate")) for name in stage.names()[0])
    final = train(stage, recipe.train, recipe.out)
    echo = EchoDecoder.load(final, stage.batches.targets.t2c)
    assert echo.gate.detach() and not echo.reads_tokens_alone
    assert all(torch.equal(value, teacher[name]) for name, value in echo.t2c.state_dict().items())
    batch = stage.batches[0]
    for override, position in (
        ("tokens=true", batch.embeddings[0]),
        ("tokens=false", torch.zeros_like(batch.embeddings[0])),
    ):
        recipe, blind = stage_of("states=false", override, f"out={recipe.out.parent / override}")
        assert torch.equal(blind.model.echo.positions(batch.batch.text[0], batch.embeddings[0]), position)
        assert all(name.startswith("echo.t2c") for name in blind.names()[0])
        assert EchoDecoder.load(train(blind, recipe.train, recipe.out)).reads_tokens_alone == recipe.tokens
    for contradiction in ("states=false", "letters=false"):
        with pytest.raises(ConfigError, match="leave states and letters true"):
            stage_of("keep_decoder=true", contradiction)
    _, mute = stage_of("letters=false")
    pair = mute.batches.targets.pairs(mute.batches.rows[:1])[0][0]
    assert len(pair.layout) == len(pair.ids) and pair.layout.letters_C is None


def test_an_llm_without_ears_is_trained_on_typed_questions(stage_of, tmp_path, toy_model):  # noqa: F811
    plain = SpeechToText.plain(load_llm(toy_model.parent / "llm"))
    plain.save(tmp_path / "plain")
    typed = (
        "s2t=" + str(tmp_path / "plain"),
        "typed=out/debug/answers/targets.jsonl",
        "data.corpora=[]",
        "data.states=[]",
    )
    recipe, stage = stage_of(*typed)
    assert len(stage.batches.rows) and all(row.states_TD is None for row in stage.batches.rows)
    assert (train(stage, recipe.train, recipe.out) / "config.json").exists()
    with pytest.raises(ConfigError, match="has no adapter"):
        stage_of(*typed, "train_lora=true")


def test_states_of_another_layer_are_refused(stage_of, toy_model):  # noqa: F811
    run_recipe(RECIPES / "encode.yaml", ["layer=1", "out=out/debug/other_states"])
    other = "data.states=[out/debug/other_states/user]"
    with pytest.raises(
        ConfigError, match=r"other_states/user holds states of layer 1 .* \S+s2t/final is of layer 2: take one"
    ):
        stage_of(other)
    for build, name, words in (
        (stage_s2t.build, "s2t", "align/final is of layer 2"),
        (stage_align.build, "align", "states/user is of layer 2"),
    ):
        states = "data.states=[out/debug/states/user,out/debug/other_states/user]"
        two = ["data.corpora=[out/debug/data/user,out/debug/data/user]", states] if name == "align" else [other]
        with pytest.raises(ConfigError, match=words):
            build(load_recipe(RECIPES / f"{name}.yaml", two))


def test_utterances_that_say_nothing_teach_no_t2c(stage_of, tmp_path, caplog):
    assert stage_of  # where the toy was made
    silent = tmp_path / "silent"
    shutil.copytree("out/debug/data/assistant", silent)
    recipe = RECIPES / "t2c.yaml", [f"data.corpora=[{silent}]", "data.max_cost=1"]  # every row is a batch
    for spared in (2, 0):
        for path in silent.glob("*.jsonl"):
            rows = read_jsonl(path)
            write_manifest(path, [row if n % 3 < spared else row | {"text": ""} for n, row in enumerate(rows)])
        if spared:
            stage = stage_t2c.build(load_recipe(*recipe))
            for number in range(12):
                assert torch.isfinite(t2c_loss(stage.model(stage.batches[number])).total)
            assert " without a text" in caplog.text
    with pytest.raises(InputError, match=r"none of the utterances of \S+silent can be used \(\d+ without a text\)"):
        stage_t2c.build(load_recipe(*recipe))


def test_units_of_another_size_are_refused(stage_of):
    run_recipe(RECIPES / "units.yaml", ["out=out/debug/few", "k=8", "language.units=8", "language.vocabulary_size=20"])
    for place, frames, words in (
        ("few", "units", r"holds 16 units of out/debug/units, out/debug/few is a language of 8 others: give"),
        ("units", "few", r"holds 8 units of out/debug/few, out/debug/units is a language of 16 others: give"),
    ):
        data = [f"data.units=out/debug/{place}", f"data.frames=[out/debug/{frames}/frames/assistant]"]
        with pytest.raises(ConfigError, match=rf"^out/debug/{frames}/frames/assistant {words}"):
            run_recipe(RECIPES / "t2c.yaml", [*data, "out=out/debug/of_few"])
        alone = Path(f"out/debug/{place}_alone")  # a language without centroids, as of `echox units words`
        UnitTokenizer.load(f"out/debug/{place}").save(alone)
        words = (
            r"data.units \S+ is not of data.frames \S+/frames/assistant: unit \d+" if place == "few" else "of 16 others"
        )
        with pytest.raises(ConfigError, match=words):
            run_recipe(RECIPES / "t2c.yaml", [f"data.units={alone}", data[1], "out=out/debug/of_few"])
    with pytest.raises(ConfigError, match="T2C was trained with another unit language than out/debug/few"):
        stage_of(SAID_BY_THE_VOICE.replace("units: out/debug/units", "units: out/debug/few"))
    with pytest.raises(ConfigError, match=r"units/frames/assistant holds unit \d+: raise vocoder.model.num_units"):
        run_recipe(RECIPES / "vocoder.yaml", ["vocoder.model.num_units=8", "out=out/debug/of_few"])
    run_recipe(RECIPES / "pack.yaml", ["unit_language=out/debug/few", "out=out/debug/of_few"])
    with pytest.raises(ModelError, match=r"of_few/t2c writes \d+ unit words, units/ knows \d+: they do not fit"):
        load_parts(Path("out/debug/of_few"), None, Place())


def test_numbers_are_read_by_t2c_as_they_are_said_and_plain_text_as_it_stands(stage_of):
    _, stage = stage_of()
    targets = stage.batches.targets
    ids = targets.tokenizer("It is 12 feet").input_ids
    pair = stage_echo.EchoPair(torch.zeros(len(ids), 1), ids, token_pieces(targets.tokenizer, ids), None, [], (0, 1))
    said, pieces = targets.read(pair)
    assert "".join(pieces) == "It is twelve feet" and said == targets.tokenizer("It is twelve feet").input_ids
    for name, value in (("words_in", None), ("spelling", False)):
        targets.t2c.config.words_in, targets.t2c.config.spelling = "en", True
        setattr(targets.t2c.config, name, value)
        assert targets.read(pair) == (ids, pair.pieces)
