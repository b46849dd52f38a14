"""Vocoder objective: spectra against torch, who is trained by which player, when the judges join."""

import pytest
import torch
from torch.nn import functional

from echox.data.vocoder_segments import SegmentBatch
from echox.models.discriminators import Discriminators
from echox.models.vocoder import UnitVocoder, VocoderConfig
from echox.objectives.vocoder import (
    Played,
    VocoderLossSettings,
    VocoderObjective,
    VocoderPass,
    duration_loss,
    magnitude,
    spectral_losses,
)
from echox.train.loop import Player, Run, Stage, TrainSettings, train_step
from echox.train.optim import OptimSettings

RESOLUTIONS = ((256, 64, 20), (128, 32, 10))


def batch() -> SegmentBatch:
    generator = torch.Generator().manual_seed(0)
    frames = torch.tensor([[1, 1, 2, 3, 3, 3, 4, 4], [5, 6, 6, 6, 7, 7, 7, 7]])
    units = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 0]])
    durations = torch.tensor([[2, 1, 3, 2], [1, 3, 4, 0]])
    whole = torch.tensor([[True, True, True, False], [True, True, False, False]])
    return SegmentBatch(frames, 0.1 * torch.randn(2, 8 * 320, generator=generator), units, durations, whole)


def game(**changes) -> tuple[VocoderPass, VocoderObjective]:
    torch.manual_seed(0)
    sizes = {"trunk_width": 16, "trunk_layers": 1, "head_width": 16, "head_layers": 1, "duration_dropout": 0.0}
    vocoder = UnitVocoder(VocoderConfig(num_units=10, embedding_dim=8, duration_width=8, **sizes))
    judges = Discriminators((2,), 0, ((128, 32),), 0.05)
    settings = VocoderLossSettings(stft=1.0, resolutions=RESOLUTIONS, **changes)
    return VocoderPass(vocoder, judges, settings.gan_samples), VocoderObjective(judges, settings)


class Same:
    """The same batch at every step."""

    def __getitem__(self, number: int) -> SegmentBatch:
        return batch()


def run(model: VocoderPass, objective: VocoderObjective) -> Run:
    optim = OptimSettings(lr=1e-2, warmup_steps=0)
    players = [
        Player("discriminator", objective.discriminator, ("judges.*",), optim),
        Player("generator", objective.generator, ("vocoder.*",), optim),
    ]
    return Run(Stage(model, players, Same(), lambda folder: None), TrainSettings(steps=9, precision="fp32"))


@pytest.mark.parametrize(("n_fft", "hop"), [(256, 64), (512, 128), (128, 64)])
def test_magnitude_equals_torch(n_fft, hop):
    wave = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
    padded = functional.pad(wave[:, None], ((n_fft - hop) // 2,) * 2, mode="reflect")[:, 0]
    window = torch.hann_window(n_fft)
    expected = torch.stft(padded, n_fft, hop, window=window, center=False, return_complex=True).abs().transpose(1, 2)
    torch.testing.assert_close(magnitude(wave, n_fft, hop), expected, atol=2e-3, rtol=1e-3)


def test_spectral_losses_vanish_for_the_same_wave_only():
    wave = batch().wave_BS
    mel, stft = spectral_losses(wave, wave, RESOLUTIONS, 16_000)
    assert float(mel) == 0 and float(stft) == 0
    mel, stft = spectral_losses(wave * torch.e, wave, ((256, 64, 20),), 16_000)
    assert abs(float(mel) - 1.0) < 1e-3 and float(stft) > 1.0


def test_judges_rest_before_gan_start():
    model, objective = game(gan_start=5)
    played = model(batch())
    silent = objective.discriminator(played, 4)
    assert silent.numbers()["loss"] == 0 and not silent.total.requires_grad
    assert "adversarial" not in objective.generator(played, 4).parts
    assert objective.discriminator(played, 5).numbers()["loss"] > 0
    assert "adversarial" in objective.generator(played, 5).parts


@pytest.mark.parametrize(("step", "share"), [(4, 0.0), (5, 0.25), (6, 0.5), (8, 1.0), (20, 1.0)])
def test_every_term_has_its_weight_and_the_judges_join_by_and_by(step, share):
    model, objective = game(gan_start=5, gan_ramp=4, mel=3.0, duration=0.5)
    loss = objective.generator(model(batch()), step)
    weights = {"mel": 3.0, "stft": 1.0, "duration": 0.5, "adversarial": share, "features": 2 * share}
    total = sum(weights[name] * float(value) for name, value in loss.parts.items())
    assert float(loss.total.detach()) == pytest.approx(total, rel=1e-5) and loss.tokens == 16


def test_judges_want_one_for_what_is_real_and_nought_for_what_is_made():
    real, made = batch(), torch.full((2, 2560), 0.25, requires_grad=True)
    real.wave_BS.fill_(0.75)
    objective = VocoderObjective(lambda wave_BS: [(wave_BS, [wave_BS, 2 * wave_BS])], VocoderLossSettings())
    played = Played(real, made, slice(0, 1600), torch.zeros(2, 4))
    judged = objective.discriminator(played, 0)
    assert float(judged.total) == 0.25**2 + 0.25**2 and not judged.total.requires_grad
    parts = objective.generator(played, 0).parts
    assert (float(parts["adversarial"]), float(parts["features"])) == (0.75**2, 0.5 + 1.0)


def test_each_player_moves_only_its_own_parameters_in_one_pass_a_step(monkeypatch):
    model, objective = game(gan_samples=1600)
    game_run, calls = run(model, objective), []
    synthesize = model.vocoder.synthesize
    monkeypatch.setattr(model.vocoder, "synthesize", lambda frames: calls.append(1) or synthesize(frames))
    before = {name: value.clone() for name, value in model.named_parameters()}
    generator = game_run.optimizers[1]
    monkeypatch.setattr(generator, "step", lambda: None)
    train_step(game_run, 0)
    moved = {name.partition(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"judges"} and len(calls) == 1
    monkeypatch.undo()
    monkeypatch.setattr(game_run.optimizers[0], "step", lambda: None)
    before = {name: value.clone() for name, value in model.named_parameters()}
    train_step(game_run, 1)
    moved = {name.partition(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"vocoder"}


def test_duration_loss_ignores_cut_units_and_padding():
    model, _ = game()
    with torch.no_grad():
        model.vocoder.dur_predictor.proj.weight.zero_()
        model.vocoder.dur_predictor.proj.bias.zero_()
    expected = torch.log(torch.tensor([2.0, 1.0, 3.0, 1.0, 3.0]) + 1).square().mean()
    torch.testing.assert_close(duration_loss(model(batch()).log_durations_BU, batch()), expected)


def test_training_on_one_batch_lowers_the_reconstruction_loss():
    model, objective = game(gan_start=10**6)
    optimizer = torch.optim.Adam(model.vocoder.parameters(), 3e-3)
    losses = []
    for step in range(30):
        loss = objective.generator(model(batch()), step)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(float(loss.parts["mel"]))
    assert losses[-1] < 0.7 * losses[0]
