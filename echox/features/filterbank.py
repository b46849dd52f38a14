"""Log-mel filterbank with the utterance's own mean and variance, and SpecAugment; it knows no model.

The spectrogram is features/logmel.py's (25 ms windows every 10 ms, Slaney mels), normalised per utterance and bin as the textless
recipes do (spec A3.1). SpecAugment (Park et al. 2019, arXiv 1904.08779) is a function of the generator it is given.

Legend: B batch, F mel bins, T mel frames (100 a second), S samples.
"""

import numpy as np
import torch

from echox.features.logmel import HOP, N_FFT, log_mel_one

SHORTEST = N_FFT + HOP  # samples that give two frames


def filterbank(wave_S: np.ndarray, mels: int = 80) -> torch.Tensor:
    """Return normalised features (T, F) of a wave at 16 kHz; a wave too short for two frames is padded with silence."""
    short = max(0, SHORTEST - len(wave_S))
    mel_FT = log_mel_one(torch.from_numpy(np.pad(np.asarray(wave_S, np.float32), (0, short))), mels)
    mean_F1, deviation_F1 = mel_FT.mean(1, keepdim=True), mel_FT.std(1, keepdim=True)
    return ((mel_FT - mean_F1) / deviation_F1.clamp(min=1e-5)).T


def spec_augment(
    features_TF: torch.Tensor, rng: np.random.Generator, mel_width: int = 27, time_width: int = 100
) -> torch.Tensor:
    """Return a copy with one band of at most `mel_width` bins and one span of at most `time_width` frames set to the mean.

    The span is at most a fifth of the utterance, so that a short one keeps its words.
    """
    masked_TF = features_TF.clone()
    for dim, widest in ((1, mel_width), (0, min(time_width, len(features_TF) // 5))):
        length = masked_TF.shape[dim]
        width = int(rng.integers(0, min(widest, length) + 1))
        first = int(rng.integers(0, length - width + 1))
        masked_TF.narrow(dim, first, width).zero_()
    return masked_TF
