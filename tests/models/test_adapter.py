"""CTC shrinking, look-back and readout of the adapter, and the released quirks behind their settings."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from echox.models.adapter import AdapterConfig, SpeechAdapter, equal_runs
from echox.objectives.s2t import ctc_loss


def adapter(**settings) -> SpeechAdapter:
    torch.manual_seed(0)
    sizes = {"encoder_width": 8, "width": 16, "layers": 1, "heads": 4, "ffn": 32}
    return SpeechAdapter(AdapterConfig(**sizes | settings)).eval()


def ctc_runs(log_probs_TC, keep_blanks: bool = False):
    """The slow twin of `SpeechAdapter.runs`: one row, from all its log-probabilities."""
    blank = log_probs_TC.shape[1] - 1
    runs = equal_runs(log_probs_TC.argmax(-1).tolist(), None if keep_blanks else blank)
    t = int(log_probs_TC[:, -1].argmin())
    return runs or [(t, t + 1, int(log_probs_TC[t, :-1].argmax()))]


def sure(model, best: list[int], strength: float = 8.0):
    """States (T, H) and CTC rows (C, H) of a model that is sure of the class `best` in every frame; blank is the last."""
    with torch.no_grad():
        model.blank.copy_(strength * torch.eye(16)[5])
        model.ctc_scale.fill_(1.0)
    return torch.eye(16)[best], strength * torch.eye(16)[:5]


def shrunk(model, states_TH, table):
    """One row through what shrinks a batch: positions (N, H) and their classes."""
    states, frames = states_TH[None], torch.tensor([len(states_TH)])
    runs = model.runs(states, frames, table)
    return model._shrink(states, frames, runs, table)[0][0], [label for _, _, label in runs[0]]


def shrink_row(model, states_TH, log_probs_TC, rows_CH):
    """The slow twin: one utterance, one run after the other."""
    runs = ctc_runs(log_probs_TC, model.config.keep_blanks)
    kept_NH = states_TH[torch.tensor([start for start, _, _ in runs])]
    keys = states_TH if model.config.look_back == "all" else kept_NH
    kept_NH = model.look_back_norm(model.look_back(kept_NH[None], keys[None], keys[None])[0][0] + kept_NH)
    if model.config.readout == "states":
        return model.scale * kept_NH
    pooled = torch.stack([log_probs_TC.exp()[start:end, :-1].mean(0) for start, end, _ in runs])
    pooled = pooled / pooled.sum(-1, keepdim=True).clamp(min=1e-6)
    return pooled @ rows_CH + model.gate * model.scale * kept_NH


class LargestTensor(TorchDispatchMode):
    """How many numbers the largest tensor has that any operation makes."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **kwargs or {})
        for one in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(one, torch.Tensor):
                self.numbers = max(self.numbers, one.numel())
        return made


def gradients(model, inputs, loss):
    model.zero_grad()
    found = torch.autograd.grad(loss, [inputs, *model.parameters()], allow_unused=True)
    return [one for one in found if one is not None]


@pytest.mark.parametrize("head", ["tied", "own"])
@pytest.mark.parametrize("said", [[3, 7, 40], [0], list(range(300))])
def test_ctc_over_a_vocabulary_in_bounded_memory_is_ctc_over_all_its_scores(head, said, monkeypatch):
    monkeypatch.setattr("echox.models.adapter.SCORES", 300 * 8)
    settings = {"ctc_head": "own", "classes": 301, "readout": "states"} if head == "own" else {}
    model = adapter(**settings).train()
    states = torch.randn(2, 96, 16, requires_grad=True)
    rows = model.ctc_rows(torch.randn(300, 16), torch.arange(300))
    targets = [[said[n % len(said)] for n in range(5)], [said[-1]]]
    counts, own = torch.tensor([96, 40]), torch.tensor(said)
    plain = ctc_loss(model.ctc_log_probs(states, rows), counts, targets)
    wanted = gradients(model, states, plain)
    with LargestTensor() as largest:
        bounded = ctc_loss(
            model.said_log_probs(states, rows, own), counts, [[said.index(n) for n in row] for row in targets]
        )
        found = gradients(model, states, bounded)
    torch.testing.assert_close(bounded, plain, rtol=1e-5, atol=1e-6)
    assert len(found) == len(wanted) >= 2
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    assert len(said) == 300 or largest.numbers < 2 * 96 * 30


def test_hearing_over_a_vocabulary_holds_no_score_of_every_frame(monkeypatch):
    model, table = adapter().train(), torch.randn(300, 16)
    model.transformer.eval()
    frames, lengths = torch.randn(2, 160, 8), torch.tensor([160, 83])
    before = model(frames, lengths, table)
    wanted = torch.autograd.grad(before.kept_BNH.square().sum(), model.linear.weight)
    monkeypatch.setattr("echox.models.adapter.SCORES", 300 * 8)
    with LargestTensor() as largest:
        after = model(frames, lengths, table)
        found = torch.autograd.grad(after.kept_BNH.square().sum(), model.linear.weight)
    assert after.classes == before.classes
    torch.testing.assert_close(after.kept_BNH, before.kept_BNH, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    assert largest.numbers < 2 * 80 * 300


@pytest.mark.parametrize("readout", ["mix", "states"])
@pytest.mark.parametrize("look_back", ["all", "kept"])
@pytest.mark.parametrize("keep_blanks", [False, True])
def test_all_rows_at_once_are_the_rows_one_by_one(readout, look_back, keep_blanks):
    model, table = adapter(readout=readout, look_back=look_back, keep_blanks=keep_blanks), torch.randn(5, 16)
    torch.manual_seed(1)
    with torch.no_grad():
        model.gate.fill_(0.7) if readout == "mix" else None
        model.ctc_scale.fill_(3.0)
    frames, lengths = torch.randn(3, 40, model.config.encoder_width), torch.tensor([40, 3, 21])
    output = model.train(False)(frames, lengths, table)
    states, counts = model.encode(frames, lengths)
    probs = model.ctc_log_probs(states, table)
    for row, n in enumerate(counts.tolist()):
        slow = shrink_row(model, states[row, :n], probs[row, :n], table)
        torch.testing.assert_close(output.kept_BNH[row][output.mask_BN[row]], slow, atol=1e-5, rtol=1e-4)
    assert (output.kept_BNH[~output.mask_BN] == 0).all()


def test_runs_collapse_and_blanks_go():
    states, table = sure(adapter(), [5, 0, 0, 5, 0, 1, 1, 5])
    frames = torch.tensor([8])
    for keep_blanks, wanted in ((False, [(1, 3, 0), (4, 5, 0), (5, 7, 1)]), (True, [5, 0, 5, 0, 1, 5])):
        model = adapter(keep_blanks=keep_blanks)
        sure(model, [0])
        runs = model.runs(states[None], frames, table)[0]
        assert (runs if not keep_blanks else [label for _, _, label in runs]) == wanted


def test_all_blank_keeps_one_frame():
    model = adapter()
    states, table = sure(model, [5, 5, 5])
    states[1, 3] = 0.5
    assert model.runs(states[None], torch.tensor([3]), table) == [[(1, 2, 3)]]


@pytest.mark.parametrize("settings", [{"readout": "mix"}, {"readout": "states"}, {"attend_over": "turns"}])
def test_company_changes_nothing(settings):
    model, table = adapter(**settings), torch.randn(5, 16)
    long, short = torch.randn(31, 8), torch.randn(12, 8)
    batch = torch.zeros(2, 31, 8)
    batch[0], batch[1, :12] = long, short
    together = model(batch, torch.tensor([31, 12]), table)
    alone = model(short[None], torch.tensor([12]), table)
    assert together.frames_B.tolist() == [16, 6]
    assert together.classes[1] == alone.classes[0]
    torch.testing.assert_close(together.kept_BNH[1][together.mask_BN[1]], alone.kept_BNH[0], atol=1e-5, rtol=1e-4)


def test_mixed_readout_of_a_sure_frame_is_the_tokens_embedding():
    model = adapter()
    states, table = sure(model, [5, 3, 3, 5], strength=20.0)
    kept, classes = shrunk(model, states, table)
    assert classes == [3]
    torch.testing.assert_close(kept[0], table[3], atol=1e-3, rtol=1e-3)


def test_look_back_quirk_ignores_dropped_frames():
    for setting, same in (("kept", True), ("all", False)):
        model = adapter(look_back=setting, readout="states")
        states, table = sure(model, [5, 3, 3, 5, 1])
        moved = states.clone()
        moved[3, 9] += 1.0  # a blank: dropped
        before, after = (shrunk(model, rows, table)[0] for rows in (states, moved))
        assert torch.allclose(before, after) is same


def test_turn_axis_quirk_mixes_no_time_with_one_turn():
    frames = torch.randn(1, 20, 8)
    moved = frames.clone()
    moved[0, 0] += 1.0
    for setting, local in (("turns", True), ("time", False)):
        model = adapter(attend_over=setting)
        before, _ = model.encode(frames, torch.tensor([20]))
        after, _ = model.encode(moved, torch.tensor([20]))
        assert torch.allclose(before[0, 1:], after[0, 1:]) is local
