"""Sound files: every refusal is one sentence that names the file, and what is read is what was written."""

import io
import os
import stat
import sys
import wave

import numpy as np
import pytest
import soundfile

from echox import audio
from echox.audio import check_output, check_samples, from_pcm16, load_audio, read_question, save_wav, to_pcm16
from echox.errors import InputError, OutputError


def tone(seconds=0.5, rate=16_000, hertz=440.0, level=0.5):
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def loudest_hertz(wave, rate=16_000):
    return np.argmax(np.abs(np.fft.rfft(wave * np.hanning(len(wave))))) * rate / len(wave)


def refused(path, **options):
    with pytest.raises(InputError) as caught:
        load_audio(path, **options)
    sentence = str(caught.value)
    assert str(path) in sentence and "\n" not in sentence and sentence.endswith(".")
    return sentence


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 1), (44_100, 2), (96_000, 2)])
def test_any_rate_and_channels_become_16_khz_mono(tmp_path, rate, channels):
    path = tmp_path / "question.wav"
    soundfile.write(path, np.stack([tone(1.0, rate)] * channels, axis=1), rate)
    wave = load_audio(path)
    assert wave.dtype == np.float32 and wave.shape == (16_000,)
    assert loudest_hertz(wave) == pytest.approx(440, abs=2)
    assert np.abs(wave).max() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("ending", "kind"), [("flac", "FLAC"), ("ogg", "OGG"), ("mp3", "MP3")])
def test_compressed_files_are_read(tmp_path, ending, kind):
    path = tmp_path / f"question.{ending}"
    soundfile.write(path, tone(1.0), 16_000, format=kind)
    wave = load_audio(path)
    assert len(wave) == pytest.approx(16_000, abs=2_500) and loudest_hertz(wave) == pytest.approx(440, abs=5)


@pytest.mark.parametrize("coding", ["GSM610", "G721_32", "NMS_ADPCM_16"])
def test_a_coding_of_telephones_that_cannot_be_wound_back_is_read(tmp_path, coding):
    path = tmp_path / "message.wav"
    soundfile.write(path, tone(1.0, 8_000), 8_000, subtype=coding)
    wave = load_audio(path)
    assert len(wave) == pytest.approx(16_000, abs=640) and loudest_hertz(wave) == pytest.approx(440, abs=5)


def test_channels_are_averaged(tmp_path):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(), 0 * tone()], axis=1), 16_000, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(path), tone() / 2, atol=1e-6)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "m4a"])
def test_where_channels_cancel_each_other_the_loudest_is_heard(tmp_path, ending):
    path, left, noise = tmp_path / f"inverted.{ending}", tone(), np.random.default_rng(0).normal(0, 1e-3, 8000)
    channels = np.stack([-0.95 * left + noise, left], axis=1).astype(np.float32)
    if ending == "m4a":
        encoded(path, "aac", "mp4", channels, 16_000)
    else:
        soundfile.write(path, channels, 16_000, format=ending.upper())
    wave = load_audio(path)
    assert abs(len(wave) - 8000) < 2500 and loudest_hertz(wave) == pytest.approx(440, abs=5)
    assert np.abs(wave[2000:6000]).max() == pytest.approx(0.5, abs=0.05)
    assert len(load_audio(path, max_seconds=3)) == len(wave)
    if ending == "wav":
        np.testing.assert_allclose(wave, left, atol=1e-4)


@pytest.mark.parametrize("content", [b"not audio at all " * 100, b"RIFF\x00\x00", os.urandom(4096)])
def test_what_is_not_audio_is_refused(tmp_path, content):
    path = tmp_path / "question.wav"
    path.write_bytes(content)
    assert "cannot be read as audio" in refused(path)


def test_headerless_and_empty_files_are_refused(tmp_path):
    raw, nothing, header = tmp_path / "question.raw", tmp_path / "nothing.wav", tmp_path / "header.wav"
    raw.write_bytes(to_pcm16(tone()))
    nothing.touch()
    soundfile.write(header, np.zeros(0, np.float32), 16_000)
    assert "cannot be read as audio" in refused(raw)
    assert "0 bytes" in refused(nothing)
    assert "is empty" in refused(header)


def test_places_that_are_no_file_are_refused(tmp_path):
    assert "does not exist" in refused(tmp_path / "missing.wav")
    assert "is a folder" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "pipe" in refused(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    path = tmp_path / "question.wav"
    save_wav(path, tone(), 16_000)
    path.chmod(0)
    assert "may not be read" in refused(path)


@pytest.mark.parametrize(
    ("wave", "reason"),
    [
        (np.zeros(16_000, np.float32), "silent"),
        (np.full(16_000, 0.25, np.float32), "silent"),  # a constant offset is silence too
        (1e-4 * tone(1.0), "silent"),
        (tone(0.05), "too short"),
        (np.where(np.arange(16_000) == 7, np.nan, tone(1.0)), "not finite"),
        (np.where(np.arange(16_000) == 7, np.inf, tone(1.0)), "not finite"),
        (30_000 * tone(1.0), "far outside"),
    ],
)
def test_waves_that_hold_no_question_are_refused(tmp_path, wave, reason):
    path = tmp_path / "question.wav"
    soundfile.write(path, wave.astype(np.float32), 16_000, subtype="FLOAT")
    assert reason in refused(path)
    with pytest.raises(InputError, match=reason):
        check_samples(wave.astype(np.float32), 16_000, "the wave")


def test_a_quiet_recording_is_not_silence(tmp_path):
    path = tmp_path / "quiet.wav"
    soundfile.write(path, tone(level=0.002), 16_000)
    assert len(load_audio(path)) == 8_000


CUTTABLE = [("wav", "WAV", "PCM_16"), ("wav", "WAV", "FLOAT"), ("wav", "WAVEX", "PCM_16"), ("wav", "RF64", "PCM_16")]
CUTTABLE += [("w64", "W64", "PCM_16"), ("aiff", "AIFF", "PCM_16"), ("au", "AU", "PCM_16"), ("mp3", "MP3", None)]
CUTTABLE += [("flac", "FLAC", "PCM_16"), ("caf", "CAF", "PCM_16"), ("ogg", "OGG", "VORBIS")]


@pytest.mark.parametrize(("ending", "kind", "subtype"), CUTTABLE)
@pytest.mark.parametrize("share", [0.9, 0.25])
def test_a_file_that_was_cut_short_is_damaged(tmp_path, ending, kind, subtype, share):
    path = tmp_path / f"question.{ending}"
    soundfile.write(path, tone(4.0), 16_000, format=kind, subtype=subtype)
    content = path.read_bytes()
    assert len(load_audio(path)) == pytest.approx(64_000, abs=2_500)
    path.write_bytes(content[: int(share * len(content))])
    sentence = refused(path)
    assert kind != "FLAC" or "copy it again" in sentence
    if kind in ("WAV", "AIFF", "MP3"):
        assert "damaged" in sentence and " % of the sound" in sentence


@pytest.mark.parametrize("size", [b"\xff\xff\xff\xff", b"\xd4\xff\xff\x7f", b"\0\0\0\x80"])
def test_a_wav_written_by_a_pipe_does_not_know_its_length(tmp_path, size):
    path = tmp_path / "question.wav"
    save_wav(path, tone(1.0), 16_000)
    content = path.read_bytes()
    path.write_bytes(content[:40] + size + content[44:])
    assert len(load_audio(path)) == 16_000


def test_many_channels_cost_no_more_memory_than_one(tmp_path):
    import tracemalloc

    path = tmp_path / "wide.flac"
    soundfile.write(path, np.stack([tone(20.0, 48_000)] * 8, axis=1), 48_000)
    load_audio(path)  # what is imported for it
    tracemalloc.start()
    wave = load_audio(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(wave) == 320_000 and peak < 20e6  # 20 s of 8 channels are 31 MB


@pytest.mark.parametrize("told", [True, False])
def test_a_small_file_of_much_sound_is_refused_before_it_fills_the_memory(tmp_path, told):
    import tracemalloc

    path, second = tmp_path / "bomb.flac", np.tile(np.array([[500, 500], [-500, -500]], np.int16), (96_000, 1))
    with soundfile.SoundFile(path, "w", 192_000, 2, "PCM_16") as file:
        for _ in range(150):  # 230 MB as float32
            file.write(second)
    content = bytearray(path.read_bytes())
    if not told:  # the number of samples, 36 bits, that a recorder which wrote into a pipe leaves out
        content[21] &= 0xF0
        content[22:26] = bytes(4)
        path.write_bytes(content)
    assert len(content) < 5e6
    refused(tmp_path / "bomb.flac", max_seconds=0.2)  # what is imported for it
    tracemalloc.start()
    sentence = refused(path, max_seconds=20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ("150.0 s" if told else "20 s") in sentence and peak < 40e6  # 20 s of it are 15 MB


def test_a_name_that_is_not_utf8_is_read(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.wav")
    save_wav(path, tone(), 16_000)
    assert len(load_audio(path)) == 8_000


def test_a_rate_that_cannot_be_is_refused(tmp_path):
    path = tmp_path / "question.wav"
    save_wav(path, tone(), 16_000)
    content = path.read_bytes()
    for rate in (1, 2**31 - 1):
        path.write_bytes(content[:24] + rate.to_bytes(4, "little") + content[28:])
        assert "samples a second" in refused(path)


def test_long_audio_is_refused_by_a_stated_limit_and_never_cut(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, tone(600.0, 1_000, 50.0), 1_000)
    sentence = refused(path, max_seconds=120)
    assert "600.0 s" in sentence and "120 s" in sentence
    assert len(load_audio(path, 1_000)) == len(load_audio(path, 1_000, max_seconds=600)) == 600_000


def test_a_wave_of_another_shape_is_refused():
    with pytest.raises(InputError, match="shape"):
        check_samples(np.zeros((2, 16_000), np.float32), 16_000, "the wave")


def test_what_is_no_sound_at_all_is_refused():
    with pytest.raises(InputError, match="is a list: give a path"):
        load_audio([0.1, 0.2])


def test_pcm16_round_trip_is_exact():
    levels = np.arange(-32_768, 32_768, dtype="<i2").tobytes()
    assert to_pcm16(from_pcm16(levels)) == levels
    assert from_pcm16(to_pcm16(np.array([-3.0, 3.0]))).tolist() == [-1.0, 32_767 / 32_768]
    with pytest.raises(InputError, match="even"):
        from_pcm16(b"\x00\x00\x00")


def test_saved_speech_is_16_bit_mono_clipped_and_reads_back(tmp_path):
    path = tmp_path / "answer.wav"
    save_wav(path, 3 * tone(), 22_050)
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (22_050, 1, "PCM_16", 8_000)
    np.testing.assert_allclose(soundfile.read(path)[0], np.clip(3 * tone(), -1, 1), atol=1 / 32_000)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "answer.wav"
    save_wav(path, tone(), 16_000)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="answer.wav"):
        save_wav(path, np.array([0.1, np.nan]), 16_000)

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(wave.Wave_write, "writeframesraw", full)
    with pytest.raises(OutputError, match="No space left"):
        save_wav(path, tone(), 16_000)
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["answer.wav"]


def test_places_that_cannot_be_written_are_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    for place, reason in [("answer.mp3", ".wav"), ("none/answer.wav", "does not exist"), ("folder", "is a folder")]:
        with pytest.raises(OutputError, match=reason):
            check_output(tmp_path / place)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="no permission"):
        check_output(tmp_path / "answer.wav")


def encoded(path, codec, container, samples, rate=48_000):
    """Writes samples, mono or [frames, 2], with PyAV, as a phone or a browser does."""
    av = pytest.importorskip("av", reason="PyAV writes the recordings of this test")
    with av.open(str(path), "w", format=container) as file:
        layout = "mono" if samples.ndim == 1 else "stereo"
        track = file.add_stream(codec, rate=rate, layout=layout)
        planes = np.ascontiguousarray(np.atleast_2d(samples.T), np.float32)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(track.format, layout, rate, track.frame_size or None)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(track.encode(piece))
        file.mux(track.encode(None))
    return path


@pytest.mark.parametrize("rate, channels", [(24_000, 1), (48_000, 2)])
def test_a_recording_whose_rate_or_channels_change_midway_is_refused(tmp_path, rate, channels):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 48_000)
    first = encoded(tmp_path / "a.aac", "aac", "adts", tone)
    second = encoded(tmp_path / "b.aac", "aac", "adts", np.stack([tone] * channels, axis=1).squeeze(), rate)
    (tmp_path / "both.aac").write_bytes(first.read_bytes() + second.read_bytes())
    with pytest.raises(InputError, match="both.aac cannot be read as audio .*change midway"):
        load_audio(tmp_path / "both.aac")


@pytest.mark.parametrize(
    ("name", "codec", "container"), [("a.m4a", "aac", "mp4"), ("a.aac", "aac", "adts"), ("a.webm", "libopus", "webm")]
)
def test_what_phones_and_browsers_record_is_read(tmp_path, name, codec, container):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    path = encoded(tmp_path / name, codec, container, tone)
    wave = load_audio(path)
    assert abs(len(wave) - 16_000) < 1600 and 0.25 < np.abs(wave[4000:12_000]).max() < 0.9
    spectrum = np.abs(np.fft.rfft(wave[4000:12_000]))
    assert abs(spectrum.argmax() * 2 - 440) <= 4
    assert np.array_equal(load_audio(path.read_bytes()), wave)
    with path.open("rb") as file:
        assert np.array_equal(load_audio(file), wave)
    with pytest.raises(InputError, match="too long"):
        load_audio(path, max_seconds=0.5)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=name):
        load_audio(path)


def test_a_container_without_pyav_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    path = tmp_path / "phone.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(64))
    with pytest.raises(InputError, match=r"openechox\[formats\]"):
        load_audio(path)


def test_a_playlist_never_reaches_the_container_reader(tmp_path):
    (tmp_path / "secret.wav").write_bytes(b"RIFF")
    path = tmp_path / "list.m4a"
    path.write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/secret.wav\n")
    with pytest.raises(InputError, match="cannot be read as audio"):
        load_audio(path)


def test_a_question_is_any_sound(tmp_path):
    tone = (0.5 * np.sin(np.arange(8000) / 5)).astype(np.float32)
    save_wav(tmp_path / "tone.wav", tone, 8000)
    expected = load_audio(tmp_path / "tone.wav")
    for sound, rate in (
        (str(tmp_path / "tone.wav"), None),
        ((tmp_path / "tone.wav").read_bytes(), None),
        (np.round(tone * 32768).astype(np.int16), 8000),
    ):
        np.testing.assert_allclose(read_question(sound, rate), expected, atol=1e-4)
    assert np.array_equal(read_question(tone), tone)
    for wrong, words in ((tone.astype(complex), "complex"), (np.zeros((2, 8000), np.float32), "shape")):
        with pytest.raises(InputError, match=words):
            read_question(wrong)
    with pytest.raises(InputError, match="sample_rate"):
        read_question(tone, 0)
    with pytest.raises(InputError, match="binary"):
        load_audio(io.StringIO("text"))


def test_a_seek_to_nowhere_moves_nothing_and_prints_nothing(tmp_path, capfd):
    path = tmp_path / "question.aiff"
    soundfile.write(path, tone(), 16_000)
    content = path.read_bytes()
    place = content.index(b"SSND")
    path.write_bytes(content[: place + 4] + b"\xff\xff\xff\xf0" + b"\xff\xff\xff\xf0" + content[place + 12 :])
    refused(path)
    steady = audio._Steady(io.BytesIO(b"1234"))
    assert steady.seek(2) == 2 and steady.seek(-5) == 2 and steady.seek(10**30) == 2
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("riff", [0, 36])
def test_a_recorder_that_died_before_it_wrote_the_size_left_its_samples(tmp_path, riff):
    path = tmp_path / "cut.wav"
    audio.save_wav(path, 0.3 * np.sin(np.arange(8000) / 9), 16_000)
    whole, written = audio.load_audio(path), bytearray(path.read_bytes())
    written[4:8], written[40:44] = riff.to_bytes(4, "little"), bytes(4)
    path.write_bytes(written)
    assert np.array_equal(audio.load_audio(path), whole) and np.array_equal(audio.load_audio(bytes(written)), whole)
    path.write_bytes(written[:44])
    with pytest.raises(InputError, match="empty"):
        audio.load_audio(path)
