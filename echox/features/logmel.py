"""Whisper's log-mel spectrogram of audio at its own length; it knows nothing about models.

The numbers are those of transformers' WhisperFeatureExtractor, without its padding to 30 seconds.

Legend: B batch, F mel bins, T mel frames (100 a second), S samples.
"""

from functools import lru_cache

import numpy as np
import torch
from transformers.audio_utils import mel_filter_bank

from echox.audio import SAMPLE_RATE

N_FFT = 400  # samples: 25 ms
HOP = 160  # samples: 10 ms per mel frame


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def mel_filters(n_mels: int, n_fft: int = N_FFT, sample_rate: int = SAMPLE_RATE) -> torch.Tensor:
    """Return Slaney mel filters from 0 to half the rate, shape (n_mels, n_fft // 2 + 1); by default Whisper's."""
    top = sample_rate / 2
    filters = mel_filter_bank(1 + n_fft // 2, n_mels, 0.0, top, sample_rate, norm="slaney", mel_scale="slaney")
    return torch.from_numpy(filters.T.astype(np.float32))


def log_mel_one(wave_S: torch.Tensor, n_mels: int = 80) -> torch.Tensor:
    """Return the log-mel spectrogram of one wave at 16 kHz, shape (n_mels, S // 160)."""
    window = torch.hann_window(N_FFT, device=wave_S.device)
    spectrum = torch.stft(wave_S, N_FFT, HOP, window=window, return_complex=True)
    power = spectrum[:, :-1].abs() ** 2
    mel_FT = (mel_filters(n_mels).to(wave_S.device) @ power).clamp(min=1e-10).log10()
    return (torch.maximum(mel_FT, mel_FT.max() - 8.0) + 4.0) / 4.0


def log_mel(waves: list[np.ndarray], n_mels: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """Return zero-padded spectrograms, shape (B, n_mels, T), and their lengths in mel frames, shape (B,)."""
    mels = [log_mel_one(torch.as_tensor(wave, dtype=torch.float32), n_mels) for wave in waves]
    lengths_B = torch.tensor([mel.shape[1] for mel in mels])
    mel_BFT = torch.zeros(len(mels), n_mels, int(lengths_B.max()))
    for row, mel_FT in zip(mel_BFT, mels, strict=True):
        row[:, : mel_FT.shape[1]] = mel_FT
    return mel_BFT, lengths_B
