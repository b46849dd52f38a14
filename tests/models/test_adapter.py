"""CTC shrinking, look-back and readout of the adapter, and the released quirks behind their settings."""

import pytest
import torch

from echox.models.adapter import AdapterConfig, SpeechAdapter, ctc_runs


def adapter(**settings) -> SpeechAdapter:
    torch.manual_seed(0)
    sizes = {"encoder_width": 8, "width": 16, "layers": 1, "heads": 4, "ffn": 32}
    return SpeechAdapter(AdapterConfig(**sizes | settings)).eval()


def log_probs(best: list[int], classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(best), classes).float().mul(8).log_softmax(-1)


def shrunk(model, states_TH, log_probs_TC, table):
    """One row through what shrinks a batch: positions (N, H) and their classes."""
    states, probs, frames = states_TH[None], log_probs_TC[None], torch.tensor([len(states_TH)])
    runs = model._runs(states, probs, frames.tolist(), table)
    return model._shrink(states, probs, frames, runs, table)[0][0], [label for _, _, label in runs[0]]


def shrink_row(model, states_TH, log_probs_TC, rows_CH):
    """The slow twin: one utterance, one run after the other."""
    runs = ctc_runs(log_probs_TC, model.config.keep_blanks)
    kept_NH = states_TH[torch.tensor([start for start, _, _ in runs])]
    if model.config.look_back != "none":
        keys = states_TH if model.config.look_back == "all" else kept_NH
        kept_NH = model.look_back_norm(model.look_back(kept_NH[None], keys[None], keys[None])[0][0] + kept_NH)
    if model.config.readout == "states":
        return model.scale * kept_NH
    pooled = torch.stack([log_probs_TC.exp()[start:end, :-1].mean(0) for start, end, _ in runs])
    pooled = pooled / pooled.sum(-1, keepdim=True).clamp(min=1e-6)
    return pooled @ rows_CH + model.gate * model.scale * kept_NH


@pytest.mark.parametrize("readout", ["mix", "states"])
@pytest.mark.parametrize("look_back", ["all", "kept", "none"])
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
    probs = log_probs([2, 0, 0, 2, 0, 1, 1, 2], 3)  # class 2 is the blank
    assert ctc_runs(probs) == [(1, 3, 0), (4, 5, 0), (5, 7, 1)]
    kept = ctc_runs(probs, keep_blanks=True)
    assert [run[2] for run in kept] == [2, 0, 2, 0, 1, 2]


def test_all_blank_keeps_one_frame():
    probs = log_probs([2, 2, 2], 3)
    probs[1, 2] -= 0.5
    assert ctc_runs(probs) == [(1, 2, 0)]


@pytest.mark.parametrize("readout", ["mix", "states"])
def test_company_changes_nothing(readout):
    model, table = adapter(readout=readout), torch.randn(5, 16)
    long, short = torch.randn(31, 8), torch.randn(12, 8)
    batch = torch.zeros(2, 31, 8)
    batch[0], batch[1, :12] = long, short
    together = model(batch, torch.tensor([31, 12]), table)
    alone = model(short[None], torch.tensor([12]), table)
    assert together.frames_B.tolist() == [16, 6]
    assert together.classes[1] == alone.classes[0]
    torch.testing.assert_close(together.kept_BNH[1][together.mask_BN[1]], alone.kept_BNH[0], atol=1e-5, rtol=1e-4)


def test_mixed_readout_of_a_sure_frame_is_the_tokens_embedding():
    model, table = adapter(), torch.randn(5, 16)
    states, probs = torch.randn(4, 16), log_probs([5, 3, 3, 5], 6) * 10
    kept, classes = shrunk(model, states, probs.log_softmax(-1), table)
    assert classes == [3]
    torch.testing.assert_close(kept[0], table[3], atol=1e-3, rtol=1e-3)


def test_look_back_quirk_ignores_dropped_frames():
    table, probs = torch.randn(5, 16), log_probs([5, 3, 3, 5, 1], 6)
    states = torch.randn(5, 16)
    moved = states.clone()
    moved[3] += 1.0  # a blank: dropped
    for setting, same in (("kept", True), ("all", False)):
        model = adapter(look_back=setting, readout="states")
        before, after = (shrunk(model, rows, probs, table)[0] for rows in (states, moved))
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
