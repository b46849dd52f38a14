import io

import numpy as np
import pytest
import soundfile
import soxr

from echox.audio import load_audio
from echox.serve import g711
from echox.serve.sound import MEDIA_TYPES, RATE, Speech, whole

av = pytest.importorskip("av")
WAVE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype(np.float32)


def streamed(wave, rate, form, size=777):
    speech = Speech(rate, form)
    return b"".join([speech.push(wave[at : at + size]) for at in range(0, len(wave), size)] + [speech.flush()])


@pytest.mark.parametrize("form", ["mp3", "opus", "aac", "flac", "wav"])
def test_every_format_holds_the_tone_for_its_second(form):
    with av.open(io.BytesIO(streamed(WAVE, 16_000, form))) as file:
        stream = np.concatenate([frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)])
        stream = soxr.resample(stream / (32_768.0 if stream.dtype == np.int16 else 1.0), file.streams[0].rate, RATE)
    for heard in (stream, load_audio(whole(WAVE, 16_000, form), RATE)):
        assert abs(len(heard) / RATE - 1) < 0.08
        middle = heard[RATE // 4 : 3 * RATE // 4]
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
        assert abs(spectrum.argmax() * RATE / len(middle) - 440) < 5 and 0.2 < np.abs(middle).max() < 0.4
    assert form in MEDIA_TYPES


def test_streamed_pcm_is_the_whole_wave_resampled():
    pcm = np.frombuffer(streamed(WAVE, 16_000, "pcm"), "<i2")
    offline = np.rint(soxr.resample(WAVE, 16_000, RATE) * 32_768).astype(np.int16)
    assert len(pcm) == len(offline) == RATE and np.abs(pcm.astype(int) - offline).max() <= 1
    same = np.frombuffer(streamed(WAVE, RATE, "pcm16"), "<i2")
    assert np.array_equal(same, np.rint(WAVE * 32_768).astype(np.int16))


def test_a_whole_wav_knows_its_length():
    with soundfile.SoundFile(io.BytesIO(whole(WAVE, 16_000, "wav"))) as sound:
        assert (sound.frames, sound.samplerate, sound.channels) == (RATE, RATE, 1)


@pytest.mark.parametrize(("form", "codec"), [("pcmu", "pcm_mulaw"), ("pcma", "pcm_alaw")])
def test_g711_is_the_standards(form, codec):
    """Decoding equals PyAV's; every code survives; encoding takes one of the two next steps."""
    codes = bytes(range(256))
    reader = av.CodecContext.create(codec, "r")
    reader.sample_rate, reader.layout = 8000, "mono"
    wanted = np.concatenate([frame.to_ndarray()[0] for frame in reader.decode(av.Packet(codes))])
    assert np.array_equal(g711.DECODE[form](codes), wanted)
    assert np.array_equal(g711.DECODE[form](g711.ENCODE[form](wanted)), wanted)
    pcm = np.arange(-32_768, 32_768).astype(np.int16)
    levels = np.unique(wanted)
    above = np.clip(np.searchsorted(levels, pcm), 1, len(levels) - 1)
    ours = g711.DECODE[form](g711.ENCODE[form](pcm))
    assert ((ours == levels[above]) | (ours == levels[above - 1])).all()
    tone = np.rint(20_000 * np.sin(np.arange(8000) * 0.3)).astype(np.int16)
    off = g711.DECODE[form](g711.ENCODE[form](tone)).astype(float) - tone
    assert 10 * np.log10((tone.astype(float) ** 2).mean() / (off**2).mean()) > 36  # dB, as the standard promises


def test_a_telephone_hears_the_tone():
    data = streamed(WAVE, 16_000, "pcmu")
    assert len(data) == 8000
    heard = g711.DECODE["pcmu"](data)[2000:6000] / 32_768
    assert abs(np.abs(np.fft.rfft(heard)).argmax() * 2 - 440) <= 2
