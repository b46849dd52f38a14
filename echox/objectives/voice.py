"""Stage `voice`: regression on what the teacher's decoder was given, and durations; it knows no data format.

Legend: B batch, J decoder frames, L latents, O outputs, U units.
"""

import torch
from torch.nn import functional

from echox.data.latents import LatentBatch
from echox.models.latent_vocoder import LatentVocoder
from echox.objectives.loss import Loss


class VoiceObjective:
    """Smooth L1 on standardised latents + `prosody` x (voicing, voiced log pitch, energy) + cross-entropy of durations."""

    def __init__(self, model: LatentVocoder, prosody: float = 0.3, durations: float = 0.1) -> None:
        self.model, self.prosody, self.durations = model, prosody, durations

    def __call__(self, batch: LatentBatch, step: int) -> Loss:
        """Return the loss of one batch."""
        model, rows = self.model, batch.judged_BJ
        outputs_NO = model.predict(batch.frames_BT, batch.mask_BT)[rows].float()
        f0_N = batch.f0_BJ[rows]
        voiced_N = f0_N > 0
        pitch_N = f0_N.clamp(min=1.0).log()
        wanted = torch.cat([batch.latents_BJL[rows], pitch_N[:, None], batch.energy_BJ[rows][:, None]], dim=1)
        wanted_NO = (wanted - model.mean_O) / model.spread_O
        latents = functional.smooth_l1_loss(outputs_NO[:, :-3], wanted_NO[:, :-2])
        voicing = functional.binary_cross_entropy_with_logits(outputs_NO[:, -1], voiced_N.float())
        pitch = ((outputs_NO[:, -3] - wanted_NO[:, -2]).abs() * voiced_N).sum() / voiced_N.sum().clamp(min=1)
        energy = (outputs_NO[:, -2] - wanted_NO[:, -1]).abs().mean()
        logits_ND = model.durations(batch.units_BU)[batch.whole_BU].float()
        lengths_N = (batch.lengths_BU[batch.whole_BU] - 1).clamp(max=model.config.max_duration - 1)
        duration = functional.cross_entropy(logits_ND, lengths_N)
        total = latents + self.prosody * (voicing + pitch + energy) + self.durations * duration
        parts = {"latents": latents, "voicing": voicing, "pitch": pitch, "energy": energy, "durations": duration}
        return Loss(total, {name: value.detach() for name, value in parts.items()})
