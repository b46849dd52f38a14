"""The model of three tasks: shared layers, shrinking, rows alone and in company, files."""

import math

import pytest
import torch
from safetensors.torch import load_file

from echox.errors import InputError, ModelError
from echox.models.ragged import first_of_runs, unpad
from echox.models.speech_translator import (
    BLANK,
    PAD,
    Heard,
    Positioned,
    SpeechTranslatorModel,
    TranslatorConfig,
    text_config,
)

SIZES = {"vocab_size": 40, "width": 16, "ffn": 32, "heads": 2, "encoder_layers": 2, "decoder_layers": 2}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return SpeechTranslatorModel(TranslatorConfig(**SIZES, encoder_width=8, max_positions=32)).eval()


def heard_of(tokens):
    """Logits that say exactly these tokens."""
    T = max(map(len, tokens))
    logits, states = torch.zeros(len(tokens), T, 40), torch.randn(len(tokens), T, 16)
    for b, row in enumerate(tokens):
        for t, token in enumerate(row):
            logits[b, t, token] = 9.0
    return Heard(states, logits, torch.tensor([len(row) for row in tokens]))


def runs_reference(tokens):
    return [t for t, token in enumerate(tokens) if t == 0 or token != tokens[t - 1]]


def test_shrinking_keeps_the_first_frame_of_every_run(model):
    rows = [[0, 0, 5, 5, 0, 6, 6, 6], [7, 7, 7], [0, 0, 0, 0]]  # the last: nothing is heard, and one frame stays
    heard = heard_of(rows)
    runs = model.shrink(heard)
    assert runs.mask_BN.sum(1).tolist() == [4, 1, 1]
    for b, row in enumerate(rows):
        kept = runs_reference(row)
        assert runs.tokens_BN[b, : len(kept)].tolist() == [row[t] for t in kept]
        torch.testing.assert_close(runs.states_BNW[b, : len(kept)], model.speech.run_norm(heard.states_BTW[b, kept]))


def test_the_first_frames_of_runs_equal_a_loop():
    torch.manual_seed(1)
    tokens, lengths = torch.randint(0, 3, (5, 12)), torch.tensor([12, 1, 7, 3, 9])
    found = unpad(tokens, first_of_runs(tokens, lengths))
    for b, length in enumerate(lengths.tolist()):
        row = tokens[b, :length].tolist()
        assert found[b].tolist() == [row[t] for t in runs_reference(row)]


def test_noise_changes_what_is_kept_only_in_training(model, expecting):
    torch.manual_seed(0)
    heard = Heard(torch.randn(1, 30, 16), torch.randn(1, 30, 40), torch.tensor([30]))
    assert model.shrink(heard).tokens_BN.equal(model.shrink(heard).tokens_BN)
    noisy = [model.shrink(heard, noise=True).tokens_BN.tolist() for _ in range(3)]
    assert noisy[0] != noisy[1] or noisy[1] != noisy[2]
    assert expecting.shrink(heard, noise=True).tokens_BN.equal(expecting.shrink(heard).tokens_BN)


def test_the_released_mask_is_a_setting(model):
    heard = heard_of([[5, 6, 7, 8], [5, 5, 5, 5]])
    assert model.shrink(heard).mask_BN.sum(1).tolist() == [4, 1]
    model.config.mask_after_shrink = False
    assert model.shrink(heard).mask_BN.all()


@pytest.fixture
def expecting():
    torch.manual_seed(0)
    return SpeechTranslatorModel(TranslatorConfig(**SIZES, encoder_width=8, max_positions=32, runs="tokens")).eval()


def test_speech_that_is_sure_of_its_tokens_is_read_as_its_transcript(expecting):
    heard = heard_of([[0, 5, 5, 0, 6, 7], [0, 0, 8], [0, 0, 0]])
    heard.logits_BTV *= 9
    runs = expecting.shrink(heard)
    assert [row[mask].tolist() for row, mask in zip(runs.tokens_BN, runs.mask_BN, strict=True)] == [
        [5, 6, 7, 2],
        [8, 2],
        [2],
    ]
    tokens = runs.tokens_BN.masked_fill(~runs.mask_BN, PAD)
    said, heard_states = expecting.read(tokens, runs.mask_BN), expecting.shared_layers(runs)
    torch.testing.assert_close(heard_states.states_BNW[runs.mask_BN], said.states_BNW[runs.mask_BN])


def test_a_run_in_doubt_lies_between_its_tokens_and_learns_through_the_doubt(expecting):
    heard = heard_of([[0, 5, 0]])
    heard.logits_BTV[0, 1, 9] = 9.0  # as likely as 5; all others e^-9 of them, the blank left out
    heard.logits_BTV[0, 1, BLANK] = 8.0
    heard.logits_BTV.requires_grad_()
    vector = expecting.shrink(heard).states_BNW[0, 0]
    shares = torch.full((40,), math.exp(-9.0))
    shares[[5, 9]], shares[BLANK] = 1.0, 0.0
    everything = expecting.embed(torch.arange(40)[None])[0]
    everything[PAD] = expecting.embeddings_VW[PAD] * 4  # looked up, padding is the same row
    torch.testing.assert_close(vector, (shares / shares.sum()) @ everything, atol=1e-5, rtol=1e-4)
    vector.sum().backward()
    assert heard.logits_BTV.grad[0, 1].abs().sum() > 0 and heard.logits_BTV.grad[0, 1, BLANK] == 0


@pytest.mark.parametrize("kind", ["model", "expecting"])
def test_an_utterance_is_the_same_alone_and_in_a_batch(kind, request):
    model = request.getfixturevalue(kind)
    frames, lengths = torch.randn(3, 40, 8), torch.tensor([40, 21, 7])
    together = model.shared_layers(model.shrink(model.hear(frames, lengths)))
    for b, length in enumerate(lengths.tolist()):
        heard = model.hear(frames[b : b + 1, :length], lengths[b : b + 1])
        alone = model.shared_layers(model.shrink(heard))
        count = int(alone.mask_BN.sum())
        assert int(together.mask_BN[b].sum()) == count and int(heard.frames_B) == -(-length // 4)
        torch.testing.assert_close(together.states_BNW[b, :count], alone.states_BNW[0], atol=1e-5, rtol=1e-4)


def test_speech_and_text_pass_the_very_same_layers(model):
    tokens = torch.tensor([[5, 6, 7, 2]])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    before = model.read(tokens, mask).states_BNW
    through = model.shared_layers(Positioned(model.embed(tokens), mask)).states_BNW
    torch.testing.assert_close(before, through)  # both norms are still the identity
    with torch.no_grad():
        model.text.model.encoder.layers[0].fc1.weight.mul_(2)
        model.speech.last_norm.weight.mul_(3)
    torch.testing.assert_close(
        3 * model.read(tokens, mask).states_BNW, model.shared_layers(Positioned(model.embed(tokens), mask)).states_BNW
    )


def test_one_last_norm_of_both_sides_keeps_speech_where_text_is():
    sizes = {**SIZES, "encoder_width": 8, "max_positions": 32}
    model = SpeechTranslatorModel(TranslatorConfig(**sizes, last_norm="shared")).eval()
    assert not [name for name, _ in model.speech.named_parameters() if "last_norm" in name]
    with torch.no_grad():
        model.text.model.encoder.layer_norm.weight.mul_(3)
    tokens = torch.tensor([[5, 6, 7, 2]])
    mask = torch.ones_like(tokens, dtype=torch.bool)
    through = model.shared_layers(Positioned(model.embed(tokens), mask)).states_BNW
    torch.testing.assert_close(model.read(tokens, mask).states_BNW, through)


def test_the_table_is_one_for_ctc_and_both_ends(model):
    frames = torch.randn(1, 12, 8)
    model.hear(frames, torch.tensor([12])).logits_BTV.sum().backward()
    assert model.text.lm_head.weight is model.embeddings_VW and model.embeddings_VW.grad.abs().sum() > 0
    assert [name for name, _ in model.named_parameters() if "embed" in name or "shared" in name] == [
        "text.model.shared.weight"
    ]


def test_files_hold_every_table_once_and_come_back(model, tmp_path):
    model.save(tmp_path)
    assert (
        len([name for name, value in load_file(tmp_path / "model.safetensors").items() if value.shape == (40, 16)]) == 1
    )
    again = SpeechTranslatorModel.load(tmp_path)
    for (name, ours), (_, theirs) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        torch.testing.assert_close(ours.half().float(), theirs, msg=name)
    assert again.text.lm_head.weight is again.embeddings_VW


def test_what_does_not_fit_is_said(model, tmp_path):
    with pytest.raises(InputError, match="longer than the model's 32"):
        model.shared_layers(Positioned(torch.zeros(1, 33, 16), torch.ones(1, 33, dtype=torch.bool)))
    text_only = SpeechTranslatorModel(TranslatorConfig(**SIZES))
    with pytest.raises(InputError, match="reads text only"):
        text_only.hear(torch.zeros(1, 4, 8), torch.tensor([4]))
    with pytest.raises(ModelError, match="heads"):
        SpeechTranslatorModel(TranslatorConfig(**SIZES | {"heads": 3}))
    assert text_config(text_only.config).encoder_layerdrop == 0
