"""Parts that were packed once, as those of a shipped model are, can be packed again beside new ones."""

import pytest
import torch
from safetensors.torch import load_file

from echox.errors import ModelError
from echox.models.t2c import TextToCodec
from echox.models.t2c_config import T2CConfig
from echox.train.pack import copy_part


@pytest.mark.parametrize("int8", [True, False])
def test_a_packed_part_packed_again_is_the_same_part(tmp_path, int8):
    torch.manual_seed(0)
    sizes = {"width": 64, "layers": 1, "heads": 2, "kv_heads": 2, "ffn": 64, "llm_width": 64, "unit_vocab_size": 80}
    TextToCodec(T2CConfig(**sizes)).save(tmp_path / "trained")
    copy_part(tmp_path / "trained", tmp_path / "shipped", int8=True)
    assert torch.int8 in {value.dtype for value in load_file(tmp_path / "shipped" / "model.safetensors").values()}
    copy_part(tmp_path / "shipped", tmp_path / "again", int8)
    first, second = (TextToCodec.load(tmp_path / name).state_dict() for name in ("shipped", "again"))
    assert all(torch.equal(second[name], value) for name, value in first.items())
    weights = tmp_path / "again" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match="the download stopped half-way"):
        copy_part(tmp_path / "again", tmp_path / "cut", int8)
    assert not (tmp_path / "cut").exists()
