"""The textless translator: taps before every change, prompts above their layer alone, padding without effect, strict parts."""

import pytest
import torch

from echox.errors import ModelError
from echox.models.ragged import pad_right
from echox.models.speech_to_units import MAIN, PRESETS, Guide, Guided, PairBatch, SpeechToUnits, SpeechToUnitsConfig
from tests.tiny_translator import tiny_model


def features(*lengths, seed=0):
    torch.manual_seed(seed)
    rows = [torch.randn(length, 80) for length in lengths]
    return pad_right(rows)[0], torch.tensor(lengths)


def test_the_encoder_shortens_by_four_and_ignores_padding():
    model = tiny_model()
    together = model.encode(*features(40, 23, 9))
    assert together.memory_BTD.shape[:2] == (3, 10) and together.mask_BT.sum(1).tolist() == [10, 6, 3]
    batch, lengths = features(40, 23, 9)
    for row, length in enumerate(lengths.tolist()):
        alone = model.encode(batch[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(
            together.memory_BTD[row, together.mask_BT[row]], alone.memory_BTD[0], atol=1e-4, rtol=1e-4
        )


def test_a_prompt_changes_what_comes_after_its_layer_and_nothing_before():
    model, given = tiny_model(prompts=[2, 3]), features(40, 24)
    first = model.encode(*given, taps=(1, 2, 3, 4))
    with torch.no_grad():
        model.prompts_PD[0] += 1
    second = model.encode(*given, taps=(1, 2, 3, 4))
    same = [torch.equal(first.taps[n][0], second.taps[n][0]) for n in (1, 2, 3, 4)]
    assert same == [True, True, False, False]
    with torch.no_grad():
        model.prompts_PD[1] += 1
    third = model.encode(*given, taps=(2, 3, 4))
    assert torch.equal(second.taps[3][0], third.taps[3][0]) and not torch.equal(second.taps[4][0], third.taps[4][0])


def test_the_first_prompt_lengthens_the_mask_once_and_taps_are_no_aliases():
    model, given = tiny_model(prompts=[2, 3]), features(40, 24)
    found = model.encode(*given, taps=(2, 3, 4))
    assert [found.taps[n][1].sum(1).tolist() for n in (2, 3, 4)] == [[10, 6], [11, 7], [11, 7]]
    assert found.mask_BT.sum(1).tolist() == [11, 7]
    plain = tiny_model().encode(*given, taps=(2,))
    torch.testing.assert_close(found.taps[2][0], plain.taps[2][0])  # what stood there before the prompt came
    assert not torch.equal(found.taps[3][0][:, 0], model.prompts_PD[1].expand(2, -1))


def test_the_released_reading_overwrites_the_first_frame_and_the_tap():
    model, given = tiny_model(prompts=[2, 3], prompt_style="released"), features(40, 24)
    found = model.encode(*given, taps=(2, 3))
    assert found.mask_BT.sum(1).tolist() == [10, 6]
    assert torch.equal(found.taps[3][0][:, 0], model.prompts_PD[1].expand(2, -1))


def test_alike_prompts_are_one_vector():
    assert tiny_model(prompts=[2, 3], prompts_alike=True).prompts_PD.shape[0] == 1


def test_guides_leave_the_translator_as_it_is_and_are_never_saved(tmp_path):
    model = tiny_model(prompts=[2, 3])
    guided = Guided(model, {"source_words": Guide(3, 9, 1), "target_words": Guide(4, 7, 1)}).eval()
    tokens = pad_right([torch.tensor([1, 4, 5, 2]), torch.tensor([1, 3, 2])])
    batch, lengths = features(40, 24)
    found = guided(PairBatch(batch, lengths, {MAIN: tokens, "source_words": tokens, "target_words": tokens}))
    assert [found[name].logits_BUV.shape[-1] for name in found] == [15, 9, 7]
    torch.testing.assert_close(found[MAIN].logits_BUV, model(batch, lengths, tokens[0][:, :-1]))
    model.save(tmp_path)
    again = SpeechToUnits.load(tmp_path).float().eval()
    assert set(again.state_dict()) == set(model.state_dict()) and not any(
        "guides" in name for name in again.state_dict()
    )
    torch.testing.assert_close(again(batch, lengths, tokens[0]), model(batch, lengths, tokens[0]), atol=0.05, rtol=0.05)


def test_presets_are_the_papers_and_a_small_one():
    with torch.device("meta"):
        base = SpeechToUnits(SpeechToUnitsConfig(**PRESETS["base"]))
        small = SpeechToUnits(SpeechToUnitsConfig(**PRESETS["small"]))
    count = {name: sum(p.numel() for p in model.parameters()) for name, model in (("base", base), ("small", small))}
    assert (len(base.layers), len(base.decoder.layers), base.config.width) == (12, 6, 512)
    assert 60e6 < count["base"] < 75e6 and count["small"] < 20e6  # 40 MB in float16


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"heads": 3}, "do not divide"),
        ({"prompts": [3, 2]}, "name each once"),
        ({"prompts": [4]}, "do not fit 4 layers"),
        ({"eos_token_id": 99}, "special tokens"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, sentence):
    with pytest.raises(ModelError, match=sentence):
        tiny_model(**change)


def test_a_guide_of_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ModelError, match="reads layer 9"):
        Guided(tiny_model(), {"x": Guide(9, 5)})
