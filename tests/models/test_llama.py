"""The decoder beside Hugging Face's, which is its slow twin: the same numbers, alone, padded, step by step and in bfloat16."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DynamicCache, LlamaForCausalLM
from transformers import LlamaConfig as TheirConfig

from echox.errors import ModelError
from echox.models.llama import LlamaConfig, LlamaLm
from echox.models.llm import Place, check_llm, load_embeddings, load_llm


def pair(kv_heads: int, dtype: torch.dtype, tied: bool = True):
    """Their model and ours with the same random weights."""
    torch.manual_seed(0)
    theirs = LlamaForCausalLM(
        TheirConfig(
            vocab_size=11, hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=6,
            num_key_value_heads=kv_heads, rope_theta=1e5, rms_norm_eps=1e-5, tie_word_embeddings=tied,
            bos_token_id=None, eos_token_id=None, pad_token_id=None,
        )
    )  # fmt: skip
    places = theirs.model.rotary_emb
    frequencies = places.inv_freq.clone()
    theirs = theirs.to(dtype).eval()
    places.inv_freq = frequencies  # float32 in whatever dtype they load a folder
    config = LlamaConfig.from_values(theirs.config.to_dict())
    assert config is not None
    ours = LlamaLm(config).to(dtype).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [6, 3, 1])
@pytest.mark.parametrize("padded", [False, True])
@torch.inference_mode()
def test_states_are_those_of_transformers(kv_heads, dtype, padded):
    theirs, ours = pair(kv_heads, dtype)
    mask = torch.ones(3, 9, dtype=torch.long)
    if padded:
        mask[0, :4], mask[1, :1] = 0, 0
    caches = DynamicCache(config=theirs.config), DynamicCache(config=ours.config)
    for new in (9, 1, 1, 4):  # a prompt, two steps, and a few tokens at once
        inputs = torch.randn(3, new, 48, dtype=dtype)
        if caches[0].get_seq_length():
            mask = torch.nn.functional.pad(mask, (0, new), value=1)
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -new:]
        given = {"inputs_embeds": inputs, "attention_mask": mask if padded else None, "use_cache": True}
        given |= {"position_ids": places} if padded else {}
        a = theirs.model(**given, past_key_values=caches[0], output_hidden_states=True)
        b = ours.model(**given, past_key_values=caches[1], output_hidden_states=True)
        real = mask[:, -new:].bool()
        for x, y in zip(a.hidden_states, b.hidden_states, strict=True):
            torch.testing.assert_close(x[real], y[real], rtol=0, atol=1e-6 if dtype == torch.float32 else 0)
        assert torch.equal(b.last_hidden_state, b.hidden_states[-1]) and not b.last_hidden_state.isnan().any()


def test_gradients_are_those_of_transformers():
    theirs, ours = pair(3, torch.float32, tied=False)
    inputs = torch.randn(2, 5, 48)
    for model in (theirs, ours):
        logits = model.get_output_embeddings()(model.get_decoder()(inputs_embeds=inputs).last_hidden_state)
        logits.square().mean().backward()
    wanted = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-5, atol=1e-7)
    assert set(wanted) == {name for name, _ in ours.named_parameters()}


def test_a_tied_head_is_the_token_table_and_an_untied_one_is_not():
    for tied in (True, False):
        _, ours = pair(6, torch.float32, tied)
        assert (ours.get_output_embeddings().weight is ours.get_input_embeddings().weight) is tied


@pytest.mark.parametrize(
    "other",
    [
        {"model_type": "qwen2"},
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
    ],
)
def test_what_is_not_computed_here_is_left_to_transformers(other):
    plain = {"model_type": "llama", "hidden_size": 48, "num_attention_heads": 6}
    found = LlamaConfig.from_values(plain)
    assert found is not None and (found.head_dim, found.num_key_value_heads, found.rope_theta) == (8, 6, 10_000.0)
    assert LlamaConfig.from_values(plain | other) is None


def test_a_folder_is_loaded_as_transformers_loads_it(tmp_path):
    for tied in (True, False):
        theirs, _ = pair(3, torch.float32, tied)
        theirs.save_pretrained(tmp_path / str(tied))
        inputs = torch.randn(1, 5, 48)
        for dtype in (torch.float32, torch.bfloat16):
            place = Place(dtype=dtype)
            a, b = (load_llm(tmp_path / str(tied), place, kind) for kind in (AutoModelForCausalLM, None))
            assert isinstance(b, LlamaLm) and not b.training and not any(p.requires_grad for p in b.parameters())
            x, y = (
                m.get_output_embeddings()(m.get_decoder()(inputs_embeds=inputs.to(dtype)).last_hidden_state)
                for m in (a, b)
            )
            torch.testing.assert_close(x, y, rtol=0, atol=1e-6 if dtype == torch.float32 else 0)


def test_rotary_tables_of_old_folders_are_passed_over(tmp_path):
    theirs, _ = pair(3, torch.float32)
    theirs.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors") | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(load_llm(tmp_path).lm_head.weight, theirs.lm_head.weight)
    check_llm(tmp_path)


def test_weights_beside_those_of_the_model_are_passed_over(tmp_path):
    """As in folders that hold their author's own layout, too: what is checked is what is loaded."""
    theirs, _ = pair(3, torch.float32)
    theirs.save_pretrained(tmp_path)
    save_file({"layers.0.attention.wq.weight": torch.ones(4)}, tmp_path / "consolidated.safetensors")
    check_llm(tmp_path)
    assert torch.equal(load_llm(tmp_path).lm_head.weight, theirs.lm_head.weight)


def test_a_folder_that_lacks_a_tensor_is_refused(tmp_path):
    theirs, _ = pair(3, torch.float32)
    theirs.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["model.norm.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="norm.weight"):
        load_llm(tmp_path)


def test_a_folder_whose_weights_were_cut_short_gives_no_token_table(tmp_path):
    _, ours = pair(1, torch.float32)
    save_file({"model.embed_tokens.weight": ours.model.embed_tokens.weight}, tmp_path / "model.safetensors")
    assert torch.equal(load_embeddings(tmp_path), ours.model.embed_tokens.weight)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(ModelError, match="the download stopped half-way"):
        load_embeddings(tmp_path)
