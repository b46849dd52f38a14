"""Losses of stages I to III: what each is on cases worked by hand, and whom it moves."""

import math

import pytest
import torch

from echox.models.echo import EchoDecoder
from echox.models.spelling import lay_out
from echox.models.t2c import T2CBatch, TextToCodec
from echox.models.t2c_config import T2CConfig
from echox.objectives.echo import EchoBatch, EchoObjective, EchoPass, EchoWeights, denoising_loss
from echox.objectives.s2t import Answered, CtcOutput, S2TObjective, align_loss, ctc_loss, hide_spans
from echox.objectives.t2c import t2c_loss

SIZES = {"llm_width": 16, "width": 32, "layers": 1, "heads": 4, "kv_heads": 2, "ffn": 64, "unit_vocab_size": 20}


def paths(frames: int, classes: int):
    """Every path of classes through the frames."""
    if frames == 0:
        return [[]]
    return [[*path, c] for path in paths(frames - 1, classes) for c in range(classes)]


def collapse(path: list[int], blank: int) -> list[int]:
    kept = [c for t, c in enumerate(path) if t == 0 or c != path[t - 1]]
    return [c for c in kept if c != blank]


def test_ctc_equals_the_sum_over_all_paths():
    torch.manual_seed(0)
    log_probs, target = torch.randn(1, 4, 3).log_softmax(-1), [0, 1]
    total = sum(
        math.exp(sum(float(log_probs[0, t, c]) for t, c in enumerate(path)))
        for path in paths(4, 3)
        if collapse(path, blank=2) == target
    )
    assert float(ctc_loss(log_probs, torch.tensor([4]), [target])) == pytest.approx(-math.log(total) / 2, rel=1e-5)


def test_impossible_rows_count_nothing():
    log_probs = torch.randn(1, 2, 3).log_softmax(-1)
    assert float(ctc_loss(log_probs, torch.tensor([2]), [[0, 0, 0]])) == 0.0


def test_where_nothing_was_said_ctc_hears_blanks():
    log_probs = torch.randn(1, 2, 3).log_softmax(-1)
    assert float(ctc_loss(log_probs, torch.tensor([2]), [[]])) == pytest.approx(-float(log_probs[0, :, 2].sum()))


def test_hidden_spans_stay_inside_their_rows():
    torch.manual_seed(0)
    frames = torch.ones(2, 50, 4)
    hidden = hide_spans(frames, torch.tensor([50, 20]), spans=3, longest=5)
    assert (hidden == 0).any() and (hidden[1, 25:] == 1).all() and (frames == 1).all()


def test_every_frame_may_be_hidden():
    torch.manual_seed(0)
    hidden = hide_spans(torch.ones(200, 12, 1), torch.full((200,), 12), spans=1, longest=3)
    assert ((hidden == 0).any(0)).all()


def test_cross_entropy_leaves_padding_out():
    logits, targets = torch.zeros(1, 3, 4), torch.tensor([[1, 2, 0]])
    logits[0, 0, 1] = 100.0
    mask = torch.tensor([[True, False, False]])
    loss = t2c_loss((logits, targets, mask))
    assert float(loss.total) == pytest.approx(0.0, abs=1e-5) and float(loss.parts["accuracy"]) == 1.0
    mask[0, 1] = True
    assert float(t2c_loss((logits, targets, mask)).total) == pytest.approx(math.log(4) / 2, rel=1e-5)


def test_denoising_is_one_minus_cosine():
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert float(denoising_loss([a], [3 * a])) == pytest.approx(0.0, abs=1e-6)
    assert float(denoising_loss([a], [a.flip(0)])) == pytest.approx(1.0)
    assert float(denoising_loss([a], [-a])) == pytest.approx(2.0)


def echo_batch(words: int = 4) -> EchoBatch:
    torch.manual_seed(3)
    rows = [torch.randn(3, 16), torch.randn(5, 16)]
    layouts = [lay_out(["a"] * n, False, None) for n in (3, 5)]
    batch = T2CBatch(rows, layouts, [[0, *range(3, 3 + words), 1]] * 2)
    goals = [torch.randn(3, 16), torch.randn(5, 16)]
    return EchoBatch(batch, goals, goals)


def test_the_denoising_share_is_capped():
    echo = EchoDecoder.from_t2c(TextToCodec(T2CConfig(**SIZES)), denoise_width=24).eval()
    capped = EchoObjective(EchoWeights(denoising_cap=0.01))(EchoPass(echo)(echo_batch()))
    echo_part, noise = float(capped.parts["echo"]), float(capped.parts["denoising"])
    assert noise > 0.01 * echo_part
    assert float(capped.total.detach()) == pytest.approx(1.01 * echo_part, rel=1e-4)
    loose = EchoObjective(EchoWeights(denoising_cap=100.0))(EchoPass(echo)(echo_batch()))
    assert float(loose.total.detach()) == pytest.approx(echo_part + noise, rel=1e-4)  # it never counts more than once
    constant = EchoObjective(EchoWeights(denoising_cap=None, denoising=0.5))(EchoPass(echo)(echo_batch()))
    assert float(constant.total.detach()) == pytest.approx(echo_part + 0.5 * noise, rel=1e-4)


def answered(sure: float, heard: CtcOutput | None = None) -> Answered:
    """Two answer tokens of two, right or (below zero) wrong by so many logits."""
    return Answered(torch.tensor([[sure, 0.0], [0.0, sure]]), torch.tensor([0, 1]), heard)


@pytest.mark.parametrize(
    ("weights", "sure", "spoken_by", "heard_by"),
    [
        ({"s2t": 0.5}, 0.0, 1.0, 0.5),
        ({"s2t": 0.5, "s2t_rule": "released"}, -2.0, 1.0, 1.0),  # a loss above one
        ({"s2t": 0.5, "s2t_rule": "released"}, 0.0, 2.0, 0.2),
    ],
)
def test_the_answers_loss_is_added_by_its_rule(weights, sure, spoken_by, heard_by):
    echo = EchoDecoder.from_t2c(TextToCodec(T2CConfig(**SIZES)), denoise_width=24).eval()
    found = EchoPass(echo)(echo_batch())
    spoken = float(EchoObjective(EchoWeights())(found).total.detach())
    found.answered = answered(sure)
    loss, heard = EchoObjective(EchoWeights(**weights), S2TObjective())(found), math.log1p(math.exp(-sure))
    assert float(loss.parts["s2t/ce"]) == pytest.approx(heard)
    assert float(loss.total.detach()) == pytest.approx(spoken_by * spoken + heard_by * heard, rel=1e-5)
    assert loss.tokens == int(found.mask_BU.sum())
    counts = {"denoising": sum(map(len, found.goals)), "s2t/ce": 2, "s2t/accuracy": 2}
    assert loss.over == counts and counts["denoising"] != loss.count  # parts are means over their own


def test_what_was_heard_counts_by_its_weight_and_is_a_mean_over_utterances():
    heard = CtcOutput(torch.zeros(2, 2, 3).log_softmax(-1), torch.tensor([2, 2]), [[0, 1], [0]], [])
    aligned = align_loss(heard)
    assert (aligned.tokens, aligned.count) == (3, 2) and torch.equal(aligned.total, aligned.parts["ctc"])
    loss = S2TObjective(0.5)(answered(0.0, heard))
    assert float(loss.total) == pytest.approx(math.log(2) + 0.5 * float(aligned.total)) and loss.count == 2
    assert float(S2TObjective(0.0)(answered(0.0, heard)).total) == pytest.approx(math.log(2))


def test_echo_moves_adapter_and_decoder_but_not_the_teacher():
    teacher = TextToCodec(T2CConfig(**SIZES)).requires_grad_(False)
    echo = EchoDecoder.from_t2c(teacher, denoise_width=24)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    optimizer = torch.optim.SGD(echo.requires_grad_(True).parameters(), lr=0.5)
    objective, losses = EchoObjective(EchoWeights()), []
    for _ in range(8):
        loss = objective(EchoPass(echo)(echo_batch())).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert echo.denoise[0].weight.grad.abs().sum() > 0 and echo.t2c.head.weight.grad.abs().sum() > 0
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
