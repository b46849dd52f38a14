"""The textless objective: weights of zero change nothing, sums and their divisors, prompts kept apart, gradients compared."""

import pytest
import torch

from echox.models.ragged import pad_right
from echox.models.speech_to_units import MAIN, Guide, Guided, PairBatch
from echox.objectives.textless import Conflict, TextlessObjective, Weights, alikeness, gradient_cosine, smoothed_sum
from echox.train.evaluate import mean_loss
from tests.tiny_translator import tiny_model

TASKS = ("source_words", "target_words")


@pytest.fixture
def guided():
    return Guided(
        tiny_model(prompts=[2, 3]), {"source_words": Guide(3, 9, 1, 0.0), "target_words": Guide(4, 9, 1, 0.0)}
    ).eval()


@pytest.fixture
def batch():
    torch.manual_seed(1)
    rows = [torch.randn(n, 80) for n in (40, 24)]
    main = pad_right([torch.tensor([1, 4, 5, 6, 2]), torch.tensor([1, 3, 2])])
    short = pad_right([torch.tensor([1, 4, 2]), torch.tensor([1, 2])])
    return PairBatch(
        pad_right(rows)[0], torch.tensor([40, 24]), {MAIN: main, "source_words": short, "target_words": short}
    )


def weights(weight, **more):
    return Weights(dict.fromkeys(TASKS, weight), {MAIN: 0.2}, **more)


def test_tasks_of_no_weight_leave_the_main_loss_as_it_is(guided, batch):
    alone = PairBatch(batch.features_BTF, batch.lengths_B, {MAIN: batch.tokens[MAIN]})
    one = TextlessObjective(guided, weights(0.0))(guided(batch))
    other = TextlessObjective(guided, weights(0.0))(guided(alone))
    assert torch.equal(one.total, other.total) and one.tokens == 6


def test_sums_are_divided_by_main_tokens_or_by_their_own(guided, batch):
    outputs = guided(batch)
    sums = {name: smoothed_sum(outputs[name], 0.2 if name == MAIN else 0.0) for name in outputs}
    by_main = TextlessObjective(guided, weights(8.0))(outputs).total
    by_own = TextlessObjective(guided, weights(8.0, per="own"))(outputs).total
    others = sums["source_words"] + sums["target_words"]
    torch.testing.assert_close(by_main, (sums[MAIN] + 8 * others) / 6)
    torch.testing.assert_close(by_own, sums[MAIN] / 6 + 8 * others / 3)


def test_what_is_logged_of_a_task_is_a_mean_over_its_own_tokens(guided, batch):
    outputs = guided(batch)
    parts = TextlessObjective(guided, weights(8.0))(outputs).parts
    assert float(parts["source_words"]) == pytest.approx(float(smoothed_sum(outputs["source_words"], 0.0)) / 3)
    main = outputs[MAIN]
    main.targets_BU = main.logits_BUV.argmax(-1)
    assert float(TextlessObjective(guided, weights(1.0))(outputs).parts["accuracy"]) == 1
    main.targets_BU = torch.where(main.mask_BU, main.targets_BU, main.targets_BU + 1)  # padding is no token
    assert float(TextlessObjective(guided, weights(1.0))(outputs).parts["accuracy"]) == 1


def test_held_out_parts_are_means_over_their_own_tokens(guided, batch):
    """Two batches whose guides have other shares of the tokens than the main task: their means are weighed by their own."""
    long = pad_right([torch.tensor([1, *[5] * 11, 2]), torch.tensor([1, 4, 2])])
    other = PairBatch(batch.features_BTF, batch.lengths_B, batch.tokens | {"source_words": long})
    found = mean_loss(guided, [batch, other], TextlessObjective(guided, weights(8.0)))
    sums = [float(smoothed_sum(guided(one)["source_words"], 0.0)) for one in (batch, other)]
    assert found["source_words"] == pytest.approx(sum(sums) / (3 + 14), rel=1e-5)


def test_the_prompt_term_is_bounded_and_the_published_one_is_not():
    same, apart = torch.ones(2, 4), torch.tensor([[1.0, 2.0], [-1.0, -2.0]])
    assert float(alikeness(same)) == pytest.approx(1) and float(alikeness(apart)) == pytest.approx(0, abs=1e-6)
    assert float(alikeness(100 * apart)) == pytest.approx(0, abs=1e-6)
    assert float(alikeness(100 * apart, "distance")) == pytest.approx(100 * float(alikeness(apart, "distance")))


def test_the_prompt_term_drives_prompts_apart(guided, batch):
    objective = TextlessObjective(guided, weights(0.0, diversity=1.0))
    before = float(alikeness(guided.translator.prompts_PD))
    loss = objective(guided(batch))
    assert float(loss.parts["prompts"]) == pytest.approx(before)
    gradient_PD = torch.autograd.grad(
        loss.total - TextlessObjective(guided, weights(0.0))(guided(batch)).total, guided.translator.prompts_PD
    )[0]
    apart = alikeness(guided.translator.prompts_PD - 0.1 * gradient_PD)
    assert float(apart) < before


def test_gradient_cosine_of_known_losses():
    layer = torch.nn.Linear(2, 1, bias=False)
    out = layer(torch.tensor([1.0, 2.0]))
    assert float(gradient_cosine(out.sum(), 3 * out.sum(), [layer])) == pytest.approx(1)
    assert float(gradient_cosine(out.sum(), -out.sum(), [layer])) == pytest.approx(-1)
    one, other = layer(torch.tensor([1.0, 0.0])).sum(), layer(torch.tensor([0.0, 1.0])).sum()
    assert float(gradient_cosine(one, other, [layer])) == pytest.approx(0)


def test_the_conflict_is_measured_now_and_then_and_leaves_the_gradients_alone(guided, batch):
    conflict = Conflict(tasks=TASKS, layers=(2, 3), every=2)
    plain, measuring = TextlessObjective(guided, weights(1.0)), TextlessObjective(guided, weights(1.0), conflict)
    gradients = []
    for objective in (plain, measuring):
        guided.zero_grad()
        loss = objective(guided(batch), step=4)
        loss.total.backward()
        gradients.append(guided.translator.layers[0].ffn[0].weight.grad.clone())
    assert torch.equal(*gradients) and -1 <= float(loss.parts["gradient_cosine"]) <= 1
    outputs = guided(batch)
    losses = [smoothed_sum(outputs[name], 0.0) / 6 for name in TASKS]
    wanted = gradient_cosine(*losses, list(guided.translator.layers[1:3]))
    assert float(loss.parts["gradient_cosine"]) == pytest.approx(float(wanted), abs=1e-5)
    assert "gradient_cosine" not in measuring(guided(batch), step=5).parts
