"""Stage `voice`: regression on what the teacher's decoder was given, and durations; it knows no data format.

Legend: B batch, D durations, J decoder frames, L latents, N judged frames, O outputs, T frames, U units, W width of the states.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from echox.data.latents import LatentBatch
from echox.models.latent_vocoder import LatentVocoder
from echox.objectives.loss import Loss


@dataclass
class Regression:
    """What the vocoder predicts for judged frames, standardised as it should be, and the lengths of whole units."""

    outputs_NO: torch.Tensor
    wanted_NO: torch.Tensor
    voiced_N: torch.Tensor
    logits_ND: torch.Tensor
    lengths_N: torch.Tensor


class VoicePass(nn.Module):
    """The forward pass of the stage."""

    def __init__(self, vocoder: LatentVocoder) -> None:
        super().__init__()
        self.vocoder = vocoder

    def forward(self, batch: LatentBatch) -> Regression:
        """Return predictions beside their targets."""
        model = self.vocoder
        batch = batch.to(model.mean_O.device)
        rows = batch.judged_BJ
        outputs_NO = model.predict(batch.frames_BT, batch.mask_BT, batch.states_BTW)[rows].float()
        f0_N = batch.f0_BJ[rows]
        pitch_N = f0_N.clamp(min=1.0).log()
        wanted = torch.cat([batch.latents_BJL[rows], pitch_N[:, None], batch.energy_BJ[rows][:, None]], dim=1)
        starts_BU1 = (batch.lengths_BU.cumsum(1) - batch.lengths_BU)[..., None].clamp(max=batch.states_BTW.shape[1] - 1)
        states_BUW = batch.states_BTW.gather(1, starts_BU1.expand(-1, -1, batch.states_BTW.shape[2]))
        logits_ND = model.durations(batch.units_BU, states_BUW, mask_BU=batch.lengths_BU > 0)[batch.whole_BU].float()
        lengths_N = (batch.lengths_BU[batch.whole_BU] - 1).clamp(max=model.config.max_duration - 1)
        return Regression(outputs_NO, (wanted - model.mean_O) / model.spread_O, f0_N > 0, logits_ND, lengths_N)


class VoiceObjective:
    """Smooth L1 on standardised latents + `prosody` x (voicing, voiced log pitch, energy) + cross-entropy of durations."""

    def __init__(self, prosody: float = 0.3, durations: float = 0.1) -> None:
        self.prosody, self.durations = prosody, durations

    def __call__(self, found: Regression, step: int = 0) -> Loss:
        """Return the loss of one batch; judged frames are its tokens."""
        outputs_NO, wanted_NO, voiced_N = found.outputs_NO, found.wanted_NO, found.voiced_N
        units, voiced = len(found.lengths_N), int(voiced_N.sum())
        latents = functional.smooth_l1_loss(outputs_NO[:, :-3], wanted_NO[:, :-2])
        voicing = functional.binary_cross_entropy_with_logits(outputs_NO[:, -1], voiced_N.float())
        pitch = ((outputs_NO[:, -3] - wanted_NO[:, -2]).abs() * voiced_N).sum() / max(1, voiced)
        energy = (outputs_NO[:, -2] - wanted_NO[:, -1]).abs().mean()
        duration = functional.cross_entropy(found.logits_ND, found.lengths_N, reduction="sum") / max(1, units)
        total = latents + self.prosody * (voicing + pitch + energy) + self.durations * duration
        parts = {"latents": latents, "voicing": voicing, "pitch": pitch, "energy": energy, "durations": duration}
        over = {"pitch": voiced, "durations": units}
        return Loss(total, {name: value.detach() for name, value in parts.items()}, tokens=len(outputs_NO), over=over)
