"""One tiny EchoX checkpoint for all tests of the package."""

import numpy as np
import pytest
import torch

from echox.models.llm import CPU
from echox.released.config import ReleasedConfig
from echox.released.open import load_tokenizer, open_parts
from echox.text.echox_dialect import EchoXTokens
from tests.released import tiny
from tests.released.reference import ReferenceEchoX
from tests.released.test_fairseq import write_vocoder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released") / "EchoX-tiny"
    tiny.write_checkpoint(folder)
    write_vocoder(folder, num_embeddings=1000)
    return folder


@pytest.fixture(scope="session")
def state(checkpoint):
    return tiny.random_state(ReleasedConfig.load(checkpoint))


@pytest.fixture(scope="session")
def parts(checkpoint):
    return open_parts(checkpoint, CPU)


@pytest.fixture(scope="session")
def tokens(checkpoint):
    return EchoXTokens.of(load_tokenizer(checkpoint), ReleasedConfig.load(checkpoint).segment_prefix_id)


@pytest.fixture(scope="session")
def reference(checkpoint, state):
    return ReferenceEchoX(ReleasedConfig.load(checkpoint), state)


@pytest.fixture
def frames():
    """Encoder frames that repeat in runs, as speech does: (windows, 100, width)."""

    def make(windows: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        slow = torch.randn(windows, 25, tiny.WIDTH, generator=generator).repeat_interleave(4, dim=1)
        return slow + 0.05 * torch.randn(windows, 100, tiny.WIDTH, generator=generator)

    return make


@pytest.fixture
def wave():
    def make(seconds: float, seed: int = 0) -> np.ndarray:
        time = np.arange(int(seconds * 16_000)) / 16_000
        noise = np.random.default_rng(seed).normal(size=len(time)) * 0.02
        return (0.3 * np.sin(2 * np.pi * (200 + 150 * np.sin(3 * time)) * time) + noise).astype(np.float32)

    return make
