"""S-Align's game: who moves in which step, what is least at one half, padding, the schedule, precisions (spec B9)."""

import math

import pytest
import torch
from torch import nn

from echox.data.translation import Triple
from echox.models.discriminators import ModalityDiscriminator
from echox.models.speech_translator import BLANK, PAD, Positioned, SpeechTranslatorModel, TranslatorConfig
from echox.objectives.modality import (
    AlignmentSettings,
    Schedule,
    Side,
    discriminator_loss,
    encoder_loss,
    mix,
    sentence_contrast,
    token_contrast,
    with_blanks,
)
from echox.objectives.translation import (
    DiscriminatorObjective,
    JointPass,
    TranslationWeights,
    TranslatorObjective,
    Written,
)

STARTS = [False] * 4 + [True, False] * 20
EARLY = Schedule(encoders_from=0, shrink_from=0, translate_from=0, mixing_from=0)


def positioned(rows, width=16, longest=None, seed=0):
    torch.manual_seed(seed)
    pieces = [torch.randn(n, width) for n in rows]
    longest = longest or max(rows)
    states = torch.zeros(len(rows), longest, width)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, piece in enumerate(pieces):
        states[row, : len(piece)], mask[row, : len(piece)] = piece, True
    return Positioned(states, mask)


def sides(requires_grad=True):
    found = [positioned([5, 3], seed=1), positioned([4, 6], seed=2)]
    for side in found:
        side.states_BNW.requires_grad_(requires_grad)
    return [Side(found[0], torch.zeros(2)), Side(found[1], torch.ones(2))]


def joint_pass(alignment=None, weights=None, schedule=EARLY, seed=0):
    torch.manual_seed(seed)
    sizes = {"width": 16, "ffn": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0}
    model = SpeechTranslatorModel(TranslatorConfig(vocab_size=44, encoder_width=8, max_positions=64, **sizes))
    settings = weights or TranslationWeights(masks=0)
    return JointPass(model, STARTS, settings, alignment or AlignmentSettings(target="half"), schedule)


def batch(step=1, rows=3, seed=0):
    torch.manual_seed(seed)
    frames = [20 + 9 * number for number in range(rows)]
    drawn = [torch.randn(T, 8).half().numpy() for T in frames]
    return [Triple(f"r{n}", [4 + n, 5, 6 + n], [7, 8 + n], states) for n, states in enumerate(drawn)], step


def gradients(module):
    return {name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()}


def test_the_discriminators_step_leaves_the_encoders_alone():
    joint = joint_pass()
    DiscriminatorObjective(joint)(joint(*batch()), 1).total.backward()
    assert all(grad is None or not grad.any() for grad in gradients(joint.model).values())
    assert any(grad is not None and grad.any() for grad in gradients(joint.discriminator).values())


def test_the_encoders_step_leaves_the_discriminator_alone():
    joint = joint_pass(weights=TranslationWeights(st=0, ctc=0, mt=0, recognition=0, masks=0))
    found = joint(*batch())
    joint.discriminator.requires_grad_(False)  # as the loop does in the encoders' turn
    before = {name: value.clone() for name, value in joint.discriminator.state_dict().items()}
    TranslatorObjective(joint)(found, 1).total.backward()
    assert all(grad is None for grad in gradients(joint.discriminator).values())
    assert all(torch.equal(value, before[name]) for name, value in joint.discriminator.state_dict().items())
    assert joint.model.speech.linear.weight.grad.abs().sum() > 0


class Always(nn.Module):
    """Judges everything the same."""

    def __init__(self, logit):
        super().__init__()
        self.logit = logit

    def forward(self, states):
        return torch.full((len(states.mask_BN), 1), self.logit), states.mask_BN.sum(1, keepdim=True).float()


def test_the_encoders_want_the_discriminator_at_one_half():
    losses = {logit: float(encoder_loss(Always(logit), sides(), "half")) for logit in (-2.0, -0.1, 0.0, 0.1, 2.0)}
    assert losses[0.0] == pytest.approx(math.log(2)) and min(losses, key=lambda logit: losses[logit]) == 0.0
    judge = ModalityDiscriminator(16).eval()
    wrong = float(encoder_loss(judge, sides(), "reversed").detach())
    assert wrong == pytest.approx(-float(discriminator_loss(judge, sides())))


def test_long_sentences_count_by_their_length():
    speech = Side(positioned([1, 9]), torch.tensor([1.0, 0.0]))  # the short one is said to be text
    judge = Always(2.0)
    by_length, alike = (float(discriminator_loss(judge, [speech], by)) for by in (True, False))
    text, other = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert by_length == pytest.approx((text + 9 * other) / 10) and alike == pytest.approx((text + other) / 2)


@pytest.mark.parametrize("level", ["sentence", "window", "token"])
def test_padding_and_company_change_nothing(level):
    judge = ModalityDiscriminator(16, level, window=4, stride=3).eval()
    together = positioned([3, 11, 6], longest=20)
    logits, counts = judge(together)
    for row, length in enumerate((3, 11, 6)):
        alone = Positioned(together.states_BNW[row : row + 1, :length], together.mask_BN[row : row + 1, :length])
        logits_1, counts_1 = judge(alone)
        n = logits_1.shape[1]
        torch.testing.assert_close(logits[row, :n], logits_1[0])
        assert counts[row, :n].equal(counts_1[0]) and not counts[row, n:].any()


def test_windows_are_means_over_their_frames():
    judge = ModalityDiscriminator(16, "window", window=4, stride=3).eval()
    states = positioned([9])
    sentence = ModalityDiscriminator(16).eval()
    sentence.load_state_dict(judge.state_dict())
    logits, counts = judge(states)
    for number, start in enumerate((0, 3, 6)):
        piece = Positioned(states.states_BNW[:, start : start + 4], states.mask_BN[:, start : start + 4])
        torch.testing.assert_close(logits[:, number], sentence(piece)[0][:, 0])
    assert counts.tolist() == [[4, 4, 3]]


def test_the_schedule_is_the_papers():
    schedule = Schedule()
    weights = {step: schedule.adversarial(step) for step in (0, 25_000, 35_000, 45_000, 60_000)}
    assert weights == {0: 1.0, 25_000: 1.0, 35_000: 0.5, 45_000: 0.0, 60_000: 0.0}
    assert schedule.recognises(14_999) and not schedule.recognises(15_000)
    with pytest.raises(ValueError, match="fall begins"):
        Schedule(fall=(10, 10))


@pytest.mark.parametrize(("step", "there"), [(999, False), (1000, True)])
def test_the_encoders_play_from_their_step_on(step, there):
    joint = joint_pass(schedule=Schedule())
    assert ("adversarial" in TranslatorObjective(joint)(joint(*batch(step))).parts) is there


@pytest.mark.parametrize("step", [2999, 3000])
def test_speech_is_translated_and_shrunk_from_its_step_on(step):
    joint = joint_pass(schedule=Schedule())
    found = joint(*batch(step))
    assert (found.st is not None) is (step == 3000) is (found.runs.tokens_BN is not None)
    assert found.mt is not None and found.heard is not None and found.sides


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_the_adversarial_gradient_is_the_same_in_every_precision(kind):
    """The released code's is divided by the loss scale in half precision (spec B2.6); here one backward pass scales all alike."""

    def gradient(dtype, scale):
        torch.manual_seed(0)
        judge = ModalityDiscriminator(16).eval().to(dtype).requires_grad_(False)
        found = sides(False)
        for side in found:
            side.states.states_BNW = side.states.states_BNW.to(dtype).requires_grad_()
        cross_entropy = found[0].states.states_BNW.float().pow(2).mean()  # stands for the other losses
        total = cross_entropy + 0.5 * encoder_loss(judge, found, "half")
        (total * scale).backward()
        return torch.cat([side.states.states_BNW.grad.float().flatten() for side in found]) / scale

    wanted, found = gradient(torch.float32, 1.0), gradient(kind, 1024.0)
    assert float((found - wanted).norm() / wanted.norm()) < 0.03


@pytest.mark.parametrize(
    ("step", "shares"),
    [
        (2999, {"mt": 0.5, "ctc": 1.0, "adversarial": 0.5}),
        (3000, {"mt": 0.5, "st": 0.7, "ctc": 1.3, "adversarial": 0.5}),
        (15_000, {"mt": 0.5, "st": 0.7, "ctc": 0.3, "adversarial": 0.5}),
        (35_000, {"mt": 0.5, "st": 0.7, "ctc": 0.3, "adversarial": 0.25}),
        (45_000, {"mt": 0.5, "st": 0.7, "ctc": 0.3}),
    ],
)
def test_every_term_has_its_weight_at_every_step(step, shares):
    joint = joint_pass(schedule=Schedule())
    found = joint(*batch(step))
    loss = TranslatorObjective(joint)(found)
    parts = {name: float(value) for name, value in loss.parts.items() if not name.endswith("_accuracy")}
    assert parts.keys() == shares.keys()
    assert float(loss.total.detach()) == pytest.approx(sum(shares[name] * parts[name] for name in parts), rel=1e-5)
    judged = DiscriminatorObjective(joint)(found)
    weight = 3 * shares.get("adversarial", 0)  # 1.5, as the encoders' 0.5 falls
    assert float(judged.total.detach()) == pytest.approx(weight * float(judged.parts.get("bce", 0)), rel=1e-5)


def test_a_pass_that_goes_by_steps_is_told_one():
    with pytest.raises(TypeError, match="step"):
        joint_pass()(batch()[0])


def test_contrasts_are_weighed_by_utterances_and_by_what_was_said():
    joint = joint_pass(AlignmentSettings(contrast="both"))
    found = joint(*batch(rows=2))
    loss = TranslatorObjective(joint)(found)
    said = found.runs.tokens_BN[found.runs.mask_BN].ne(BLANK).sum()
    assert {"contrast", "token_contrast"} <= set(loss.parts)
    assert (loss.over["contrast"], loss.over["token_contrast"]) == (2, int(said)) != (loss.tokens, loss.tokens)


def test_what_is_written_is_a_mean_over_real_tokens():
    targets = torch.tensor([[7, 8, PAD], [9, PAD, PAD]])
    logits = torch.zeros(2, 3, 44)
    logits[0, 0, 7] = logits[1, 0, 8] = 100.0
    logits[targets == PAD] += 100 * torch.eye(44)[5]
    written = Written(logits, targets)
    assert float(written.accuracy()) == pytest.approx(1 / 3)
    assert float(written.loss(0.0)) == pytest.approx((0 + math.log(44) + 100) / 3, rel=1e-5)


def test_each_part_says_how_many_things_it_is_a_mean_over():
    rows, step = batch()
    found = joint_pass(AlignmentSettings())([*rows, Triple("t", [4, 5], [6, 7])], step)
    loss = TranslatorObjective(joint_pass(AlignmentSettings()))(found)
    counts = {"mt": 12, "mt_accuracy": 12, "st": 9, "st_accuracy": 9, "ctc": 3}
    assert loss.over == counts and loss.count == 12 + 9 and loss.parts.keys() == counts.keys()


def test_weights_of_zero_leave_the_other_losses_as_they_are():
    plain, game = (
        TranslatorObjective(joint)(joint(*batch())).total
        for joint in (joint_pass(AlignmentSettings()), joint_pass(AlignmentSettings(target="half", weight=0.0)))
    )
    assert float(plain) == float(game)


def test_mixing_replaces_the_share_that_the_label_says():
    runs = positioned([400, 100], seed=3)
    mixed, share_B = mix(runs, torch.zeros_like(runs.states_BNW))
    for row, length in enumerate((400, 100)):
        replaced = (mixed.states_BNW[row, :length] == 0).all(-1).float().mean()
        assert float(replaced) == pytest.approx(float(share_B[row]), abs=0.15)
    joint = joint_pass(AlignmentSettings(target="half", mixing=1.0))
    labels = joint(*batch()).sides[0].label_B
    assert ((labels > 0) & (labels < 1)).all()
    assert not joint.eval()(*batch()).sides[0].label_B.any()


def test_blanks_stand_before_words_only_and_lower_the_label():
    torch.manual_seed(0)
    tokens = [4, 5, 6, 7, 8, 9] * 20
    noisy, label = with_blanks(tokens, STARTS, BLANK, share=1.0, most=1.0)
    assert [token for token in noisy if token != BLANK] == tokens and label < 1
    after = [noisy[place + 1] for place, token in enumerate(noisy) if token == BLANK]
    assert after and all(STARTS[token] for token in after)
    assert len(after) / 60 == pytest.approx(1 - label, abs=0.15)
    assert with_blanks(tokens, STARTS, BLANK, share=0.0, most=1.0) == (tokens, 1.0)


def test_contrast_wants_each_utterance_with_its_own_transcript():
    speech = positioned([4, 5, 6], seed=4)
    assert sentence_contrast(speech, speech, 0.1) < 0.1
    turned = Positioned(speech.states_BNW.roll(1, 0), speech.mask_BN.roll(1, 0))
    assert sentence_contrast(speech, turned, 0.1) > 3
    table = torch.eye(16)
    runs = Positioned(
        table[torch.tensor([[5, 0, 7, 9]])], torch.ones(1, 4, dtype=torch.bool), torch.tensor([[5, 0, 7, 9]])
    )
    assert token_contrast(runs, table, 0.1, BLANK) < 0.01
    assert token_contrast(runs, table, 0.1, BLANK, shift=1) > 5
    runs.tokens_BN.zero_()
    assert float(token_contrast(runs, table, 0.1, BLANK)) == 0  # nothing was heard


def test_shuffled_sides_hold_speech_against_the_next_transcript():
    joint = joint_pass(AlignmentSettings(target="half", shuffled=True)).eval()
    straight = joint_pass(AlignmentSettings(target="half")).eval()
    text, moved = (one(*batch()).sides[1].states for one in (straight, joint))
    torch.testing.assert_close(text.states_BNW.roll(-1, 0), moved.states_BNW)


@pytest.mark.parametrize("settings", [{"target": "half"}, {"contrast": "sentence"}])
def test_an_utterance_alone_is_never_shuffled_onto_its_own_transcript(settings):
    alone = batch()[0][:1]
    straight, moved = (
        joint_pass(AlignmentSettings(**settings, shuffled=one)).eval()(alone, 5) for one in (False, True)
    )
    assert straight.sides or straight.pair
    assert not moved.sides and moved.pair is None


def test_recognition_is_weighed_by_gradients_and_stops_when_small():
    joint = joint_pass(AlignmentSettings(), TranslationWeights(task_norm_every=10, recognition=1.0, masks=0))
    objective = TranslatorObjective(joint)
    objective(joint(*batch(step=9)))
    assert float(joint.recognition) == 1.0
    objective(joint(*batch(step=10)))
    once = float(joint.recognition)
    objective(joint(*batch(step=10)))  # a second micro-batch of the step
    assert once != 1.0 and float(joint.recognition) == once
    joint.model.speech.requires_grad_(False)  # while speech does not learn there is nothing to weigh
    assert objective(joint(*batch(step=20))).total.requires_grad and float(joint.recognition) == once
    joint.model.speech.requires_grad_(True)
    joint.recognition.fill_(1e-3)
    states_BTW = joint(*batch(step=20)).heard.states_BTW
    objective.weigh_recognition(20, states_BTW, states_BTW.pow(2).sum() * 1e-9, states_BTW.abs().sum())
    assert float(joint.recognition) == 0.0


def test_rows_take_part_in_what_they_have():
    rows = batch()[0]
    only_text = [Triple("t", [4, 5], [6, 7])]
    joint = joint_pass(AlignmentSettings())
    found = joint(only_text, 5)
    assert found.mt is not None and found.st is None and found.heard is None
    heard_only = [Triple("s", rows[0].transcript, [], rows[0].states_TD)]
    found = joint(heard_only, 5)
    assert found.mt is None and found.st is None and found.heard is not None
    loss = TranslatorObjective(joint)(found)
    assert torch.isfinite(loss.total) and loss.count == len(rows[0].transcript)  # beside batches that are translated


def test_a_batch_without_both_sides_counts_nothing_for_the_discriminator():
    joint = joint_pass()
    assert DiscriminatorObjective(joint)(joint([Triple("t", [4, 5], [6, 7])], 5)).count == 0
    assert DiscriminatorObjective(joint)(joint(*batch())).count == 6
