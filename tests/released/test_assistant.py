"""A released folder answers, speaks, streams and batches; conversions there and back are bit-equal."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, WhisperFeatureExtractor

from echox import Question
from echox.assistant import SpeechAssistant
from echox.errors import ConfigError, InputError, ModelError, OutputError
from echox.generate import answer
from echox.generate.pauses import within
from echox.models.encoder import SpeechEncoder
from echox.models.weights import WeightFiles
from echox.released.config import ReleasedConfig
from echox.released.convert import convert_checkpoint, kind_of, restore_checkpoint
from echox.released.open import as_released
from echox.text.prompt import Turn
from tests.released import tiny
from tests.released.reference import ReferenceCodeHifigan, ReferenceEchoX, cut_segments, parse
from tests.released.test_fairseq import write_vocoder

SETTINGS = {
    "decoding": {"temperature": 0.0, "max_new_tokens": 40},
    "speech": {"longest": 12},
    "segments": {"window": 2, "shortest": 6, "longest": 9},
}


def load(folder, **options):
    return SpeechAssistant.load(folder, device="cpu", **options).with_settings(**SETTINGS)


def listen(assistant, question):
    return assistant.parts.ear.hear([question])[0].positions_NH


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "EchoX-tiny"
    tiny.write_checkpoint(folder, dtype=torch.float16)
    write_vocoder(folder, num_embeddings=1000)
    return folder


@pytest.fixture(scope="module")
def assistant(folder):
    return load(folder)


def test_the_whole_path_equals_its_pieces(assistant, folder, wave, reference):
    """Waveform to waveform against the slow twin, with the same float16 weights in float32."""
    assistant = SpeechAssistant(as_released(assistant.parts))
    state = {n: t.float() for n, t in WeightFiles(folder).read(WeightFiles(folder).headers)}
    twin = ReferenceEchoX(ReleasedConfig.load(folder), state)
    question, t = wave(1.3), assistant.parts.dialect.tokens
    frames = assistant.parts.encoder.encode([np.pad(question, (0, 32_000 - len(question)))], (1,))[0][1]
    speech = twin.speech(frames)[0]
    torch.testing.assert_close(listen(assistant, question), speech, rtol=1e-4, atol=1e-4)
    prompt = assistant.parts.dialect.prompt([Turn("user", "", (question,))])
    placed = [*prompt.before, t.audio_patch, *prompt.after]
    embeds, mask = twin.embed(placed, [speech], t.audio_patch, t.eot)
    ids, states, scores = twin.answer(embeds, mask, t.eot, t.period, 40)
    before, after = (list(around) for around in t.around_states)
    units, waves = [], []
    cuts = cut_segments(scores, window=2, short=6, long=9)
    assert len(cuts) > 1
    for start, end in cuts:
        inputs = twin.segment_inputs(states[start:end], before, after)
        words = twin.units(inputs, t.eot, 12)
        spoken = parse(t.tokenizer.decode(words, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        units += spoken
        if spoken:
            waves.append(vocoder_twin(folder)(spoken))
    reply = assistant.ask(question)
    assert reply.text == t.tokenizer.decode(ids, skip_special_tokens=True).strip() and reply.units == units
    np.testing.assert_allclose(reply.audio, np.concatenate(waves), atol=1e-4)


def vocoder_twin(folder):
    twin = ReferenceCodeHifigan(json.loads((folder / "vocoder_config.json").read_text())).eval()
    twin.load_state_dict(torch.load(folder / "g_00500000", weights_only=True)["generator"])
    return twin


def test_spoken_typed_and_said(assistant, wave, tmp_path):
    path = tmp_path / "q.wav"
    soundfile.write(path, wave(1.0), 16_000)
    reply = assistant.ask(path)
    assert reply.text and reply.units and reply.audio.dtype == np.float32 and np.abs(reply.audio).max() <= 1
    assert len(reply.audio) % 320 == 0 and reply.sample_rate == 16_000 and reply.finish == "length"
    assert reply.first_audio_seconds is not None and reply.first_audio_seconds <= reply.wall_seconds
    typed = assistant.ask(typed="hello", text_only=True)
    assert typed.audio is None and typed.text and typed.text != reply.text and typed.question == "hello"
    short = assistant.ask(path, max_seconds=0.1)
    np.testing.assert_array_equal(short.audio, within(reply.audio, 1600, 16_000))
    said = assistant.say("good morning")
    assert said.units and len(said.audio)
    with pytest.raises(InputError, match=r"contains <\|unit_3\|>, which no voice can say"):
        assistant.say("good <|unit_3|>")
    for wrong in (lambda: assistant.ask(), lambda: assistant.say(" "), lambda: assistant.ask(np.zeros(0, np.float32))):
        with pytest.raises(InputError):
            wrong()


def test_what_a_released_folder_is_told(folder, tmp_path):
    assert SpeechAssistant.load(str(folder), device="cpu", dtype="float32").load_seconds > 0
    with pytest.raises(ConfigError, match="carries its own text model"):
        SpeechAssistant.load(folder, llm=tmp_path)
    with pytest.raises(ConfigError, match="loudness is no setting"):
        SpeechAssistant.load(folder, device="cpu").with_settings(decoding={"loudness": 3})


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_answers(folder, wave, dtype):
    reply = load(folder, dtype=dtype).ask(wave(1.0))
    assert reply.text and len(reply.audio) and np.isfinite(reply.audio).all()


def test_streams_do_not_touch_each_other(assistant, wave):
    questions = [wave(1.0), wave(1.7, seed=1)]
    alone = [assistant.ask(q) for q in questions]
    streams = [assistant.stream(q) for q in questions]
    text, audio = ["", ""], [[], []]
    while any(stream is not None for stream in streams):
        for row, stream in enumerate(streams):
            piece = next(stream, None) if stream is not None else None
            if piece is None:
                streams[row] = None
                continue
            text[row] += piece.text
            audio[row] += [piece.audio] if piece.audio is not None else []
    for row, reply in enumerate(alone):
        assert text[row].strip() == reply.text
        np.testing.assert_array_equal(np.concatenate(audio[row]), reply.audio)


def test_a_batch_of_conversations(assistant, wave):
    chats = [
        [Turn("user", "", (wave(1.0),))],
        [Turn("user", "a word", (wave(0.6, 1), wave(0.5, 2))), Turn("assistant", "yes."), Turn("user", "and?")],
        [Turn("user", "typed only")],
    ]
    together = assistant.converse(chats)
    for chat, reply in zip(chats, together, strict=True):
        alone = assistant.converse([chat])[0]
        assert reply.text == alone.text and reply.units == alone.units
        np.testing.assert_allclose(reply.audio, alone.audio, atol=1e-4)
    assert assistant.ask_many([wave(1.0)])[0].units == together[0].units
    assert [r.text for r in assistant.ask_many([Question(typed="typed only"), wave(1.0)], text_only=True)][
        0
    ] == together[2].text
    assert assistant.ask(typed="and?", history=chats[1][:2], text_only=True).text == together[1].text


def test_long_audio_and_long_prompts(assistant, wave):
    question = wave(4.5)
    windows = [listen(assistant, question[s : s + 32_000]) for s in (0, 32_000, 64_000)]
    whole = listen(assistant, question)
    torch.testing.assert_close(whole, torch.cat(windows), rtol=1e-4, atol=1e-4)
    assert len(listen(assistant, question[:32_100])) > len(windows[0])  # a last window of 6 ms
    released = SpeechAssistant(as_released(assistant.parts))
    torch.testing.assert_close(listen(released, question), windows[0], rtol=1e-4, atol=1e-4)
    kept = released.with_settings(decoding={"max_new_tokens": 3})  # what was set before stays set
    assert torch.equal(listen(kept, question), listen(released, question))
    asked = answer.understand(assistant.parts, [[Turn("user", "long " * 700)]])[0]
    assert len(asked.row.inputs_NW) > 2048
    assert assistant.ask(typed="long " * 700, text_only=True).text


def test_seeds(assistant):
    warm = assistant.with_settings(decoding={"temperature": 1.5, "max_new_tokens": 12})
    chats = [[Turn("user", text)] for text in ("one", "two")]
    answers = [[r.text for r in warm.converse(chats, text_only=True, seed=seed)] for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]
    assert warm.ask(typed="two", text_only=True, seed=1).text == answers[0][1]
    assert assistant.parts.s2t.config.temperature == 0  # settings of one are not those of another


def test_every_stop_token_ends(assistant, monkeypatch):
    from echox.models import decoding

    for stop in assistant.parts.dialect.tokens.stops:
        picks = iter([40, 41, stop, 42])
        monkeypatch.setattr(decoding, "choose", lambda *_, picks=picks: [next(picks)])
        reply = assistant.ask(typed="x", text_only=True)
        assert reply.finish == "stop" and reply.text == assistant.parts.tokenizer.decode([40, 41]).strip()


def test_characters_split_over_tokens(assistant, monkeypatch):
    from echox.models import decoding

    ids = assistant.parts.tokenizer("né 你好 🙂!", add_special_tokens=False).input_ids
    picks = iter([*ids, assistant.parts.dialect.tokens.eot])
    monkeypatch.setattr(decoding, "choose", lambda *_: [next(picks)])
    pieces = [piece.text for piece in assistant.stream(typed="x", text_only=True)]
    assert "".join(pieces) == "né 你好 🙂!" and not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert len(ids) > len("né 你好 🙂!")


def test_soundwave_reads_but_does_not_speak(tmp_path, wave):
    folder = tmp_path / "Soundwave"
    raw = tiny.settings("Soundwave")
    state = tiny.write_checkpoint(folder, raw)
    encoder = tiny.write_whisper(tmp_path / "w", prefix="model.audio_tower.")
    for parameter in encoder.parameters():
        parameter.data *= 0.5
    carried = {f"model.audio_tower.{n}": t.contiguous() for n, t in encoder.state_dict().items()}
    for file in folder.glob("model*"):
        file.unlink()
    save_file({**state, **carried}, folder / "model.safetensors")
    assistant = SpeechAssistant.load(folder, device="cpu").with_settings(decoding={"max_new_tokens": 9})
    assert torch.equal(assistant.parts.encoder.whisper.conv1.weight, encoder.conv1.weight)
    assert assistant.ask(wave(1.0), text_only=True).text
    with pytest.raises(ModelError, match="does not speak"):
        assistant.ask(wave(1.0))
    convert_checkpoint(folder, tmp_path / "ours")
    ours = SpeechAssistant.load(tmp_path / "ours", device="cpu", dtype="float32")
    assert ours.parts.voice is None and ours.at_most(9).ask(typed="x", text_only=True).text
    restore_checkpoint(tmp_path / "ours", tmp_path / "back")
    assert WeightFiles(tmp_path / "back").shapes == WeightFiles(folder).shapes
    convert_checkpoint(
        folder, tmp_path / "other", tmp_path / "whisper-tiny-random"
    )  # in place of the one that it carries
    given = SpeechEncoder.from_pretrained(tmp_path / "whisper-tiny-random").whisper.conv1.weight
    other = SpeechAssistant.load(tmp_path / "other", device="cpu", dtype="float32")
    assert torch.equal(other.parts.encoder.whisper.conv1.weight, given)
    restore_checkpoint(tmp_path / "other", tmp_path / "back")
    assert WeightFiles(tmp_path / "back").shapes.keys() == state.keys()


def test_a_text_to_codec_decoder_without_its_adapter_is_converted_and_silent(tmp_path):
    folder, ours = tmp_path / "EchoX", tmp_path / "ours"
    tiny.write_checkpoint(folder, tiny.settings(unit_output="pretrain"))
    convert_checkpoint(folder, ours)
    assert SpeechAssistant.load(ours, device="cpu").parts.voice is None
    (ours / "s2t" / "model.safetensors").unlink()
    save_file({"adapter.scale": torch.ones(())}, ours / "s2t" / "model.safetensors")
    with pytest.raises(ModelError, match=f"{ours} lacks model.mm_projector1"):
        restore_checkpoint(ours, tmp_path / "back")
    for names in (3, [["lm_head.weight"]], [3], {"lm_head.weight": 1}):
        (ours / "original" / "tensors.json").write_text(json.dumps(names))
        with pytest.raises(InputError, match="tensors.json is no list of tensors' names"):
            restore_checkpoint(ours, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_the_encoder_is_found_and_checked(folder, tmp_path):
    copy = tmp_path / "alone" / "EchoX"
    shutil.copytree(folder, copy)
    tiny.write_whisper(copy / "encoder", width=20, prefix="")
    for read in (load, lambda folder: convert_checkpoint(folder, tmp_path / "ours")):
        with pytest.raises(ModelError, match="20 wide; expected 24"):
            read(copy)
    assert not (tmp_path / "ours" / "llm").exists()
    tiny.write_whisper(copy / "encoder", prefix="encoder.")
    assert load(copy).parts.encoder.width == 24
    (copy / "g_00500000").unlink()
    with pytest.raises(ModelError, match="no vocoder in"):
        load(copy)
    with pytest.raises(ModelError, match="nothing does not exist"):
        load(tmp_path / "nothing")


def test_full_windows_equal_transformers(tmp_path, wave):
    encoder = tiny.write_whisper(tmp_path / "w")
    ours = SpeechEncoder.from_pretrained(tmp_path / "w", full_windows=True)
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    mel = extractor([wave(1.0)], sampling_rate=16_000, return_tensors="pt").input_features
    assert mel.shape == (1, 16, 200)
    with torch.no_grad():
        expected = encoder(mel).last_hidden_state[0]
    torch.testing.assert_close(ours.encode([wave(1.0)], (1,))[0][1], expected, rtol=1e-4, atol=1e-4)


def test_there_and_back_is_bit_equal(folder, assistant, tmp_path, wave):
    ours, back = tmp_path / "ours", tmp_path / "back"
    convert_checkpoint(folder, ours, shard_bytes=30_000)
    assert kind_of(ours) == "ours" and kind_of(folder) == "checkpoint"
    parts = {"llm", "s2t", "t2c", "echo", "encoder", "vocoder", "original"}
    assert {p.name for p in ours.iterdir() if p.is_dir()} == parts
    reply = load(ours, dtype="float32").ask(wave(1.0))
    expected = assistant.ask(wave(1.0))
    assert reply.text == expected.text and np.array_equal(reply.audio, expected.audio)
    llm = LlamaForCausalLM.from_pretrained(ours / "llm", dtype=torch.float32)
    ids = torch.arange(7)[None]
    assert torch.equal(llm.model(ids).last_hidden_state, assistant.parts.s2t.body(input_ids=ids).last_hidden_state)

    restore_checkpoint(ours, back)
    first, last = WeightFiles(folder), WeightFiles(back)
    assert first.shapes == last.shapes
    originals = dict(first.read(first.headers))
    for name, tensor in last.read(last.headers):
        assert tensor.dtype == originals[name].dtype == torch.float16
        assert torch.equal(tensor.view(torch.int16), originals[name].view(torch.int16)), name
    assert json.loads((back / "config.json").read_text()) == json.loads((folder / "config.json").read_text())
    for name in ("g_00500000", "vocoder_config.json", "tokenizer.json", "generation_config.json"):
        assert (back / name).read_bytes() == (folder / name).read_bytes()
    with pytest.raises(InputError, match="in our layout already"):
        convert_checkpoint(ours, tmp_path / "again")
    with pytest.raises(InputError, match="not a folder that echox convert wrote"):
        restore_checkpoint(folder, tmp_path / "again")


def test_a_tied_checkpoint_stays_tied(tmp_path):
    folder, ours, back = tmp_path / "EchoX-3B", tmp_path / "ours", tmp_path / "back"
    tiny.write_checkpoint(folder, tiny.settings(tied=True))
    write_vocoder(folder, num_embeddings=1000)
    convert_checkpoint(folder, ours, without_encoder=True)
    assert "lm_head.weight" not in load_file(ours / "llm" / "model.safetensors") and not (ours / "encoder").exists()
    for _ in range(2):  # over what an earlier conversion left
        convert_checkpoint(folder, ours)
    restore_checkpoint(ours, back)
    assert WeightFiles(back).shapes == WeightFiles(folder).shapes


def test_the_command_line(folder, tmp_path):
    from typer import Typer
    from typer.testing import CliRunner

    from echox.commands.convert import convert

    app = Typer()
    app.command()(convert)
    runner = CliRunner()
    result = runner.invoke(app, [str(folder), "-o", str(tmp_path / "o")])
    assert result.exit_code == 0 and "EchoX, 2 layers, 20 unit tokens" in result.output
    result = runner.invoke(app, [str(tmp_path / "o"), "-o", str(tmp_path / "b"), "--to", "released"])
    assert result.exit_code == 0 and (tmp_path / "b" / "g_00500000").is_file()
    vocoder = ["--config", str(folder / "vocoder_config.json"), "-o", str(tmp_path / "v")]
    result = runner.invoke(app, [str(folder / "g_00500000"), *vocoder])
    assert result.exit_code == 0 and "1000 units at 16000 Hz" in result.output
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("mine")
    result = runner.invoke(app, [str(folder / "g_00500000"), *vocoder[:2], "-o", str(tmp_path / "mine")])
    assert isinstance(result.exception, OutputError) and (tmp_path / "mine" / "config.json").read_text() == "mine"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["config.json"]
    with pytest.raises(InputError, match="of no kind"):
        kind_of(folder / "tokenizer.json")
    for options in ([], ["--to", "released"]):
        result = runner.invoke(app, [str(tmp_path / "nowhere"), "-o", str(tmp_path / "n"), *options])
        assert isinstance(result.exception, InputError) and not (tmp_path / "n").exists()
        assert "nowhere" in str(result.exception) and "does not exist" in str(result.exception)
        assert "unknown model" not in str(result.exception)
