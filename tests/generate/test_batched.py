"""Many answers on one model: in company, whoever comes, goes or fails, each is what the engine makes that takes them in turn."""

import random
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from echox import InputError, ModelError, SpeechAssistant
from echox.errors import EchoxError
from echox.generate import answer, batched
from echox.generate.batched import Batched
from echox.generate.ears import window_seconds
from echox.generate.engine import Ask, Engine, InTurn
from echox.generate.types import WAIT, Piece
from echox.models import kept
from echox.train.toy import sound_of
from tests.toy_model import listening_model, toy_model  # noqa: F401 - fixtures

HISTORY = (("user", "Who is the king?"), ("assistant", "The king is Paris."))
ASKS = (
    Ask(sound_of("What is the capital of France?")),
    Ask(sound_of("Who is the king?"), text_only=True),
    Ask(typed="Is it?", history=HISTORY),
    Ask(say="The answer is Paris. A big red city."),
    Ask(typed="What is the capital of France?"),
    Ask(sound_of("Is it?"), instructions="Be red."),
)


@dataclass(eq=False)
class Talk:
    """An answer under way, and what came of it."""

    ask: Ask
    pieces: object = None
    made: list[Piece] = field(default_factory=list)
    error: Exception | None = None
    over: bool = False

    def go_on(self, engine: Engine) -> Piece | None:
        self.pieces = self.pieces or engine.open(self.ask)
        try:
            piece = next(self.pieces, None)
        except EchoxError as error:
            self.error, piece = error, None
        self.over = piece is None
        if piece is not None and piece is not WAIT:
            self.made.append(piece)
        return piece

    def result(self) -> tuple:
        waves = [np.zeros(0, np.float32), *(piece.audio for piece in self.made if piece.audio is not None)]
        units = [unit for piece in self.made for unit in piece.units]
        text, heard = ("".join(getattr(piece, name) for piece in self.made) for name in ("text", "heard"))
        return text, heard, units, np.concatenate(waves).tolist(), self.made[-1].finish if self.made else ""


def run(engine: Engine, talks: list[Talk], order: random.Random, cancelled: frozenset[int] = frozenset()) -> None:
    """Open, advance, step and give up in an order drawn at random, until all have ended."""
    coming, going, turns = [*talks], list[Talk](), 0
    while coming or going:
        turns += 1
        assert turns < 20_000
        if coming and order.random() < 0.2:
            going.append(coming.pop(order.randrange(len(coming))))
        elif going and order.random() < 0.6:
            order.choice(going).go_on(engine)
        else:
            engine.step()
        for talk in [one for one in going if talks.index(one) in cancelled and len(one.made) == 2]:
            talk.pieces.close()
            talk.over = True
        going = [talk for talk in going if not talk.over]


@pytest.fixture(scope="module")
def assistant(toy_model):  # noqa: F811
    return SpeechAssistant.load(str(toy_model), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def wanted(assistant):
    """What the obvious engine makes of every question, one after the other."""
    talks, engine = [Talk(ask) for ask in ASKS], InTurn(assistant)
    for talk in talks:
        while not talk.over:
            talk.go_on(engine)
        assert talk.error is None
    assert all(talk.result()[2] for talk in talks if not talk.ask.text_only)
    return [talk.result() for talk in talks]


def rows(engine: Batched) -> int:
    """Return how many rows hold keys and values, or wait to be read or heard."""
    return len(engine.unheard) + sum(len(one.slots or ()) + len(one.joining) for one in engine.batches.values())


@pytest.mark.parametrize("seed", range(4))
def test_in_any_interleaving_text_units_and_samples_are_those_of_one_after_the_other(assistant, wanted, seed):
    engine, talks = Batched(assistant), [Talk(ask) for ask in ASKS]
    run(engine, talks, random.Random(seed))
    assert [talk.result() for talk in talks] == wanted
    assert rows(engine) == 0 and not engine.unread


def test_a_step_is_one_forward_pass_for_all_that_wait(assistant, monkeypatch):
    """Four equal questions: the LLM runs as often as for one of them, four rows a time."""
    sizes, s2t = [], type(assistant.parts.s2t)
    head = s2t.token_logits
    monkeypatch.setattr(s2t, "token_logits", lambda self, hidden: sizes.append(len(hidden)) or head(self, hidden))
    list(InTurn(assistant).open(ASKS[1]))
    assert len(sizes) > 1 and set(sizes) == {1}
    engine, talks, times = Batched(assistant), [Talk(ASKS[1]) for _ in range(4)], len(sizes)
    sizes.clear()
    while not all(talk.over for talk in talks):
        for talk in talks:
            while not talk.over and talk.go_on(engine) is not WAIT:
                pass
        engine.step()
    assert sizes == [4] * times


def test_one_that_is_given_up_frees_its_row_and_disturbs_nobody(assistant, wanted):
    engine, talks = Batched(assistant), [Talk(ask) for ask in ASKS]
    run(engine, talks, random.Random(7), cancelled=frozenset({0, 3}))
    assert len(talks[0].made) == 2 and len(talks[3].made) == 2
    assert [talks[n].result() for n in (1, 2, 4, 5)] == [wanted[n] for n in (1, 2, 4, 5)]
    assert rows(engine) == 0 and not engine.unread


def test_a_row_is_free_the_moment_its_answer_is_closed(assistant):
    engine, talks = Batched(assistant), [Talk(Ask(typed="Is it?", text_only=True)) for _ in range(3)]
    for _ in range(3):
        for talk in talks:
            talk.go_on(engine)
        engine.step()
    assert rows(engine) == 3
    talks[1].pieces.close()
    assert rows(engine) == 2 and len(engine.unread) == 2


@pytest.mark.parametrize(
    ("ask", "kind"),
    [
        (Ask(np.zeros(0, np.float32)), InputError),
        (Ask(b"no recording"), InputError),
        (Ask(typed=" "), InputError),
        (Ask(typed="overflow"), ModelError),
    ],
    ids=["no samples", "no recording", "no words", "no numbers"],
)
def test_an_error_ends_its_own_answer_alone(assistant, wanted, monkeypatch, ask, kind):
    def understanding(parts, turns, *given):
        asked = yield from heard(parts, turns, *given)
        if turns[-1].text == "overflow":
            asked.row.inputs_NW = asked.row.inputs_NW * torch.nan
        return asked

    heard = answer.understanding
    monkeypatch.setattr(answer, "understanding", understanding)
    engine, talks = Batched(assistant), [*map(Talk, ASKS[:3]), Talk(ask)]
    run(engine, talks, random.Random(3))
    assert isinstance(talks[3].error, kind)
    assert [talk.result() for talk in talks[:3]] == wanted[:3] and not any(talk.error for talk in talks[:3])
    assert rows(engine) == 0 and not engine.unread


def test_a_conversation_kept_over_its_turns_gets_the_answers_of_one_that_is_not(assistant, monkeypatch):
    """Two conversations beside each other; from their second turns on the text model reads what is new alone."""
    monkeypatch.setattr(kept, "LEAST", 4)
    found, find = [], kept.Kept.find
    monkeypatch.setattr(kept.Kept, "find", lambda self, row: found.append(find(self, row)) or found[-1])
    engine, plain = Batched(assistant, keep=2), InTurn(assistant)
    histories: list[tuple] = [(), ()]
    for turn in range(3):
        asks = [
            Ask(typed=text, history=one) for text, one in zip(("Who is the king?", "Is it?"), histories, strict=True)
        ]
        talks, twins = [Talk(ask) for ask in asks], [Talk(ask) for ask in asks]
        run(engine, talks, random.Random(turn))
        run(plain, twins, random.Random(0))
        assert [talk.result() for talk in talks] == [twin.result() for twin in twins]
        histories = [
            (*one.ask.history, ("user", one.ask.typed), ("assistant", one.result()[0].strip() or "Paris."))
            for one in talks
        ]
    assert all(found[2:]) and max(len(slots.seen_BN[0]) for slots in found[2:]) > 20
    assert len(engine.batches[id(assistant.parts.s2t)].kept.rows) == 2 and rows(engine) == 0


@pytest.fixture(scope="module", params=["toy_model", "listening_model"])
def hearing(request):
    """An assistant of either ear."""
    return SpeechAssistant.load(str(request.getfixturevalue(request.param)), device="cpu", dtype="float32")


@pytest.fixture
def passes(hearing, monkeypatch):
    """How many waves each pass of the encoder hears."""
    sizes, forward = [], hearing.parts.encoder.forward
    monkeypatch.setattr(
        hearing.parts.encoder, "forward", lambda mel, *given: sizes.append(len(mel)) or forward(mel, *given)
    )
    return sizes


KING = sound_of("Who is the king?")
QUESTIONS = (Ask(KING), Ask(np.tile(KING, 3)), Ask(KING[::-1].copy()), Ask(np.roll(KING, 800)))
ALIKE = (0, 2, 3)  # as long as each other


@pytest.fixture(scope="module")
def alone(hearing):
    """What the obvious engine makes of these."""
    talks = [Talk(ask) for ask in QUESTIONS]
    run(InTurn(hearing), talks, random.Random(0))
    assert any(talk.result()[1] for talk in talks)
    return [talk.result() for talk in talks]


def assert_made(talks, wanted):
    """Hold that answers are those, up to the rounding of sums."""
    for talk, (*told, samples, finish) in zip(talks, wanted, strict=True):
        *found, wave, end = talk.result()
        assert (found, end, talk.error) == (told, finish, None)
        np.testing.assert_allclose(wave, samples, atol=1e-5)


def test_as_long_questions_are_heard_in_one_pass_and_rows_go_on_before_others_are(hearing, alone, passes, monkeypatch):
    engine, typed, talks = Batched(hearing), Talk(Ask(typed="Is it?")), [Talk(ask) for ask in QUESTIONS]
    for heard in ([3], [3, 1]):
        while typed.go_on(engine) is not WAIT:
            assert not typed.over
        waiting = [talk.go_on(engine) is WAIT for talk in talks]
        assert waiting == ([True] * 4 if len(heard) == 1 else [False, True, False, False])
        engine.step()
        assert passes == heard and [len(line.said) for line in engine.unread] == [len(heard)]
    run(engine, [typed, *talks], random.Random(0))
    assert len(passes) == 2 and rows(engine) == 0
    assert_made(talks, alone)
    monkeypatch.setattr(batched, "TOGETHER", 2 * window_seconds(KING) + 1)
    talks = [Talk(ask) for ask in QUESTIONS]
    assert all(talk.go_on(engine) is WAIT for talk in talks)
    for _ in range(3):
        engine.step()
    assert passes[2:] == [2, 1, 1]


def test_of_windows_that_are_always_full_hardly_one_is_heard_in_a_pass(assistant, monkeypatch):
    """However short what stands in them is."""
    sizes, ear = [], assistant.parts.ear
    monkeypatch.setattr(ear.encoder, "full_windows", True)
    monkeypatch.setattr(ear, "hear", lambda waves, drafts: sizes.append(len(waves)) or [None] * len(waves))
    assert [ear.seconds(wave) for wave in (KING, np.zeros(ear.encoder.window_samples + 1))] == [30, 60]
    engine = Batched(assistant)
    talks = [Talk(ask) for ask in (QUESTIONS[0], QUESTIONS[0])]
    assert all(talk.go_on(engine) is WAIT for talk in talks)
    engine.step()
    assert sizes == [1]


@pytest.mark.parametrize("seed", range(2))
def test_whoever_hears_in_company_hears_the_same_overheard_before_or_not(hearing, alone, seed):
    begun = [Talk(Ask(wave, so_far=True)) for wave in (KING[: len(KING) // 2], KING)]
    engine, talks = Batched(hearing, keep=2), [Talk(ask) for ask in (*QUESTIONS, QUESTIONS[0])]
    assert begun[0].go_on(engine) is WAIT and not engine.unheard  # heard by itself
    run(engine, [*begun, *talks], random.Random(seed))
    assert_made(talks, [*alone, alone[0]])
    assert rows(engine) == 0 and not engine.unread


def test_one_that_leaves_while_it_waits_is_not_heard(hearing, alone, passes):
    engine, talks = Batched(hearing), [Talk(QUESTIONS[at]) for at in ALIKE]
    assert all(talk.go_on(engine) is WAIT for talk in talks)
    talks[0].pieces.close()
    engine.step()
    assert passes == [2]
    run(engine, talks[1:], random.Random(0))
    assert_made(talks[1:], [alone[at] for at in ALIKE[1:]])
    assert rows(engine) == 0 and not engine.unread


def test_a_wave_that_cannot_be_heard_ends_its_own_answer_alone(hearing, alone, monkeypatch):
    def encode(waves, layers):
        if any(np.array_equal(wave[:1600], wrong[:1600]) for wave in waves):
            raise ModelError("it cannot be heard.")
        return heard(waves, layers)

    wrong, heard = QUESTIONS[2].question, hearing.parts.encoder.encode
    monkeypatch.setattr(hearing.parts.encoder, "encode", encode)
    engine, talks = Batched(hearing), [Talk(QUESTIONS[at]) for at in ALIKE]
    assert all(talk.go_on(engine) is WAIT for talk in talks)
    engine.step()
    run(engine, talks, random.Random(0))
    assert str(talks[1].error) == "it cannot be heard." and not talks[1].made
    assert_made([talks[0], talks[2]], [alone[0], alone[3]])
    assert rows(engine) == 0 and not engine.unread


def test_each_is_told_what_it_said_itself(assistant, monkeypatch):
    """The toy ear takes everything for the same words: here it tells each wave by its first sample."""

    def hear(waves, drafts):
        return [replace(one, text=f"{wave[0]:.1f}") for wave, one in zip(waves, heard(waves, drafts), strict=True)]

    heard = assistant.parts.ear.hear
    monkeypatch.setattr(assistant.parts.ear, "hear", hear)
    engine, talks = Batched(assistant), [Talk(Ask(np.r_[np.float32(at / 10), KING[1:]])) for at in (1, 2, 3)]
    assert all(talk.go_on(engine) is WAIT for talk in talks)
    engine.step()
    assert [talk.go_on(engine).heard for talk in talks] == ["0.1", "0.2", "0.3"]
