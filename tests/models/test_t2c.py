"""T2C and echo decoder: batches equal single rows, generation equals the teacher-forced argmax, parts load strictly."""

import json

import pytest
import torch
from safetensors import safe_open

from echox.errors import ModelError
from echox.models import decoding
from echox.models.echo import EchoDecoder
from echox.models.spelling import TextLayout
from echox.models.t2c import T2CBatch, TextToCodec, loops
from echox.models.t2c_config import T2CConfig

SIZES = {"llm_width": 16, "width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "ffn": 64, "unit_vocab_size": 50}


def decoder(**settings) -> TextToCodec:
    torch.manual_seed(1)
    return TextToCodec(T2CConfig(**SIZES | settings)).eval()


def texts(model: TextToCodec) -> tuple[list[torch.Tensor], list[TextLayout]]:
    torch.manual_seed(2)
    pieces = [["The", " answer", " is"], ["Hello", ",", " big", " world", "."]]
    return [torch.randn(len(row), 16) for row in pieces], [model.layout(row) for row in pieces]


@pytest.mark.parametrize("spelling", [False, True])
@pytest.mark.parametrize("aligned", [True, False])
def test_batched_generation_equals_single_and_forced(aligned, spelling):
    model = decoder(aligned_positions=aligned, spelling=spelling)
    text, layouts = texts(model)
    made = model.generate(text, layouts, limit=20, states=True)
    together = [one.ids for one in made]
    singly = [model.generate([t], [p], limit=20)[0] for t, p in zip(text, layouts, strict=True)]
    assert together == [one.ids for one in singly] and not any(one.states for one in singly)
    bos, eos, pad = (getattr(model.config, f"{name}_token_id") for name in ("bos", "eos", "pad"))
    batch = T2CBatch(text, layouts, [[bos, *words, eos] for words in together])
    (logits, targets, mask), (states_BUW, *_) = model(batch), model.states(batch)
    logits[..., [bos, pad]] = -torch.inf
    for row, words in enumerate(together):
        assert len(words) > 3
        assert logits[row, : len(words)].argmax(-1).tolist() == words
        torch.testing.assert_close(states_BUW[row, : len(words)], torch.stack(made[row].states), atol=1e-4, rtol=1e-3)
        assert targets[row][mask[row]].tolist() == [*words, eos]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("spelling", [False, True])
def test_a_text_is_said_after_the_words_before_it(aligned, spelling):
    """The slow twin is the row itself, laid out by hand: the words before, the text, its own words beside it."""
    model = decoder(spelling=spelling, aligned_positions=aligned)
    text, layouts = texts(model)
    bos, eos, pad = (getattr(model.config, f"{name}_token_id") for name in ("bos", "eos", "pad"))
    past = [7, 8, 9]
    alone, after = (model.generate(text, layouts, limit=8, states=True, past=p)[1] for p in ((), [[], past]))
    assert (torch.stack(after.states) - torch.stack(alone.states)).abs().max() > 0.005
    assert [word for word, _ in decoding.alone(model, model.line(text[1], layouts[1], past))][:8] == after.ids
    words_NW = model.embed_tokens(torch.tensor([bos, *after.ids]))
    row_NW = torch.cat([model.embed_tokens(torch.tensor(past)), model.read(text[1:], layouts[1:])[0], words_NW])
    first = model.first_place(layouts[1])
    places_N = torch.cat([torch.tensor([-3, -2, -1]), layouts[1].places_C, first + torch.arange(len(words_NW))])
    hidden_NW = model.decoder(inputs_embeds=row_NW[None], position_ids=places_N[None]).last_hidden_state[0]
    said_NW = hidden_NW[-len(words_NW) : -1]
    torch.testing.assert_close(torch.stack(after.states), said_NW, atol=1e-4, rtol=1e-3)
    logits = model.head(said_NW)
    logits[:, [bos, pad]] = -torch.inf
    assert logits.argmax(-1).tolist() == after.ids
    words = [model.framed([3, 4]), model.framed(after.ids)]
    states_BUW, targets_BU, mask_BU = model.states(T2CBatch(text, layouts, words, [[], past]))
    torch.testing.assert_close(states_BUW[1][mask_BU[1]][:-1], said_NW, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        states_BUW[0][mask_BU[0]], model.states(T2CBatch(text[:1], layouts[:1], words[:1]))[0][0], atol=1e-4, rtol=1e-3
    )
    assert [row[mask].tolist() for row, mask in zip(targets_BU, mask_BU, strict=True)] == [row[1:] for row in words]


def test_a_past_ends_with_its_sentence():
    model = decoder(past_words=3)
    assert model.past_of([5, 6, 7, 8], "The capital of") == [6, 7, 8] and model.past_of([5], " Dr.") == [5]
    assert model.past_of([5, 6, 7, 8], " is Paris.") == [] == decoder().past_of([5, 6], "The capital of")


def test_places_follow_characters():
    model = decoder(words_per_character=0.5)
    assert model.layout(["abcd", "ef", "ghijkl"]).places_C.tolist() == [0, 2, 3]
    assert decoder(aligned_positions=False).layout(["abcd", "ef"]).places_C.tolist() == [0, 1]


def test_spelling_gives_every_byte_a_position():
    layout = decoder(words_per_character=0.5, spelling=True).layout(["ab", "", " é"])
    assert layout.owners_C.tolist() == [0, 0, 1, 2, 2, 2]
    assert bytes(layout.letters_C.tolist()) == b"ab\0 " + "é".encode()
    assert layout.places_C.tolist() == [0, 0, 1, 2, 2, 2]
    assert decoder(aligned_positions=False, spelling=True).layout(["ab", "c"]).places_C.tolist() == [0, 1, 2]


def test_letters_and_the_letters_around_them_matter():
    model = decoder(spelling=True)
    text = [torch.ones(2, 16), torch.ones(3, 16)]

    def read(*pieces):
        layouts = [model.layout(list(pieces)), model.layout(["x", "y", "z"])]
        return model.read(text, layouts)

    cello, cells = read(" cel", "lo")[0], read(" cel", "ls")[0]
    assert cello.shape == (6, 32)
    assert (cello[-1] - cells[-1]).abs().max() > 1e-3 and (cello[2] - cells[2]).abs().max() > 1e-6
    torch.testing.assert_close(cello[0], cells[0])
    torch.testing.assert_close(read(" cel", "lo")[1], model.read(text[1:], [model.layout(["x", "y", "z"])])[0])


def test_the_text_matters():
    model = decoder()
    text, layouts = texts(model)
    bos, eos = model.config.bos_token_id, model.config.eos_token_id
    words = [[bos, 7, 8, 9, eos]] * 2
    before = model(T2CBatch(text, layouts, words))[0]
    changed = model(T2CBatch([text[0] + 1, text[1]], layouts, words))[0]
    assert not torch.allclose(before[0], changed[0])
    torch.testing.assert_close(before[1], changed[1])


def test_round_trip_and_strict_loading(tmp_path):
    model = decoder().half().float()
    model.save(tmp_path / "t2c")
    again = TextToCodec.load(tmp_path / "t2c").eval()
    text, layouts = texts(model)
    said, expected = ([one.ids for one in part.generate(text, layouts, limit=9)] for part in (again, model))
    assert said == expected
    config = json.loads((tmp_path / "t2c" / "config.json").read_text())
    for change, message in (
        ({"layers": 3}, "lacks tensor"),
        ({"layers": 1}, "unexpected tensor"),
        ({"ffn": 32}, "shape"),
    ):
        (tmp_path / "t2c" / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=message):
            TextToCodec.load(tmp_path / "t2c")
    (tmp_path / "t2c" / "config.json").write_text(json.dumps(config | {"widht": 3}))
    with pytest.raises(ModelError, match="widht"):
        TextToCodec.load(tmp_path / "t2c")
    (tmp_path / "t2c" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError):
        TextToCodec.load(tmp_path / "t2c")
    with pytest.raises(ModelError, match="nowhere is not a model part: it does not exist; check the path"):
        TextToCodec.load(tmp_path / "nowhere")


def test_echo_starts_as_its_teacher(tmp_path):
    teacher = decoder()
    echo = EchoDecoder.from_t2c(teacher, denoise_width=24)
    for name, value in teacher.state_dict().items():
        assert torch.equal(echo.t2c.state_dict()[name], value), name
    text, layouts = texts(teacher)
    bos, eos = teacher.config.bos_token_id, teacher.config.eos_token_id
    logits, _, _, denoised = echo(T2CBatch(text, layouts, [[bos, 5, eos], [bos, 6, eos]]), text)
    assert [d.shape for d in denoised] == [t.shape for t in text]
    logits.sum().backward()
    assert echo.denoise[0].weight.grad is not None and teacher.head.weight.grad is None
    echo.save(tmp_path / "echo")
    assert EchoDecoder.load(tmp_path / "echo").config.denoise_width == 24


def test_an_echo_decoder_without_states_has_no_adapter_and_older_folders_load(tmp_path):
    teacher = decoder()
    echo = EchoDecoder.from_t2c(teacher, denoise_width=24, tokens=True, states=False)
    echo.save(tmp_path / "new")
    held = set(echo.state_dict())
    assert held == {f"t2c.{name}" for name in teacher.state_dict()}
    older = EchoDecoder.from_t2c(teacher, denoise_width=24)
    older.config.tokens, older.config.states = True, False  # what was written before
    older.save(tmp_path / "old")
    for name in ("new", "old"):
        again = EchoDecoder.load(tmp_path / name)
        assert set(again.state_dict()) == held and again.reads_tokens_alone
        torch.testing.assert_close(again.t2c.head.weight, echo.t2c.head.weight, atol=1e-3, rtol=0)
    older.config.states = True
    with pytest.raises(ModelError, match="lacks tensor gate"):
        older.save(tmp_path / "torn")
        EchoDecoder.load(tmp_path / "torn")


def test_an_echo_decoder_that_reads_tokens_says_what_its_teacher_says_until_it_is_trained(tmp_path):
    teacher = decoder().eval()
    echo = EchoDecoder.from_t2c(teacher, denoise_width=24, tokens=True).eval()
    text, layouts = texts(teacher)
    batch = T2CBatch(text, layouts, [[0, 5, 1], [0, 6, 1]])
    states = T2CBatch([torch.randn_like(row) for row in text], layouts, batch.words)
    logits = echo(states, text)[0]
    torch.testing.assert_close(logits, teacher(batch)[0])
    logits.sum().backward()
    assert echo.gate.grad.abs() > 0  # and it can be trained
    echo.config.shares_decoder = True
    echo.save(tmp_path / "echo")
    with safe_open(tmp_path / "echo" / "model.safetensors", "pt") as file:
        assert not any(name.startswith("t2c.") for name in file.keys())  # noqa: SIM118
    again = EchoDecoder.load(tmp_path / "echo", teacher)
    assert again.t2c is teacher
    with pytest.raises(ModelError, match="shares the decoder"):
        EchoDecoder.load(tmp_path / "echo")


def test_a_decoder_that_hangs_is_stopped():
    assert not loops([1, 2, 3] * 3 + [1, 2], 4)
    assert loops([9, *[1, 2, 3] * 4], 4)  # four times the same run
    assert loops([5] * 8, 4) and not loops([5] * 7, 4)
    assert loops(list(range(32)) * 4, 4) and not loops(list(range(33)) * 4, 4)
    model = decoder()
    assert model.is_over(list(range(20)), 20) and not model.is_over(list(range(19)), 20)
    assert model.is_over([5] * 8, 100) and not decoder(loops=0).is_over([5] * 8, 100)


@pytest.mark.parametrize("spelling", [False, True])
def test_rows_are_read_at_once_as_one_by_one(spelling):
    model = decoder(spelling=spelling)
    text, layouts = texts(model)
    words = [[0, 7, 8, 9, 1], [0, 5, 1]]
    alone = [model.read([t], [p])[0] for t, p in zip(text, layouts, strict=True)]
    for one, other in zip(model.read(text, layouts), alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    logits, targets, mask = model(T2CBatch(text, layouts, words))
    for row in range(2):
        single, right, _ = model(T2CBatch([text[row]], [layouts[row]], [words[row]]))
        torch.testing.assert_close(logits[row][mask[row]], single[0], atol=1e-4, rtol=1e-3)
        assert targets[row][mask[row]].tolist() == right[0].tolist()
