"""Two processes train what one would: replicated or cut, saved on two and resumed on one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn

from echox.errors import ConfigError
from echox.models.lora import buffer_name
from echox.models.spelling import lay_out
from echox.models.t2c import T2CBatch, TextToCodec
from echox.models.t2c_config import T2CConfig
from echox.objectives.t2c import t2c_loss
from echox.train.loop import Moves, Player, Stage, TrainSettings, check_shardable, train
from echox.train.optim import OptimSettings
from echox.train.stages import load_recipe, run_recipe
from tests.train.test_loop import stage as game

SIZES = {
    "llm_width": 8,
    "width": 16,
    "layers": 2,
    "heads": 2,
    "kv_heads": 2,
    "ffn": 24,
    "unit_vocab_size": 12,
    "dropout": 0.1,
}
OPTIM = OptimSettings(lr=0.01, warmup_steps=2)


class Texts:
    """Batches of texts and unit words of many lengths, each a function of its number."""

    def __getitem__(self, number: int) -> T2CBatch:
        draw = torch.Generator().manual_seed(number)
        counts = [1 + int(torch.randint(6, (), generator=draw)) for _ in range(1 + number % 3)]
        words = [[0, *torch.randint(3, 12, (2 * n,), generator=draw).tolist(), 1] for n in counts]
        texts = [torch.randn(n, 8, generator=draw) for n in counts]
        return T2CBatch(texts, [lay_out(["a"] * n, False, None) for n in counts], words)


class Gaps(Texts):
    """Those, of which some hold nothing."""

    def __getitem__(self, number: int) -> T2CBatch | None:
        return None if number in (1, 4, 6, 7) else super().__getitem__(number)


class Scaled(nn.Module):
    """T2C and a scalar that scales its logits, which cannot be cut; and a buffer that is named as those of models/lora.py are."""

    def __init__(self) -> None:
        super().__init__()
        self.t2c, self.scale = TextToCodec(T2CConfig(**SIZES)), nn.Parameter(torch.ones(()))
        self.register_buffer(buffer_name("layers.0.q_proj", "A"), torch.zeros(2))

    def forward(self, batch: T2CBatch) -> tuple:
        logits, targets, mask = self.t2c(batch)
        return logits * self.scale, targets, mask


class Counting(Scaled):
    """That, with a buffer that is moved by each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("texts", torch.zeros(()))

    def forward(self, batch: T2CBatch) -> tuple:
        self.texts += len(batch.words)
        return super().forward(batch)


def stage(kind: type[Scaled] = Scaled, buffers: tuple[str, ...] = ()) -> Stage:
    torch.manual_seed(0)
    model = kind()
    player = Player("t2c", t2c_loss, ("*",), OPTIM)

    def save(folder: Path) -> None:
        torch.save(model.state_dict(), folder / "model.pt")

    return Stage(model, [player], Texts(), save, buffers=buffers)


def settings(**values) -> TrainSettings:
    return TrainSettings(**{"steps": 6, "save_every": 3, "log_every": 1, "precision": "fp32"} | values)


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    train(stage(), settings(), Path(folder) / "replicate")
    train(stage(), settings(parallel="shard"), Path(folder) / "shard")
    train(stage(), settings(parallel="shard", steps=3), Path(folder) / "half")
    for steps in (3, 6):
        train(stage(), settings(parallel="shard", steps=steps), Path(folder) / "again")
    gaps = stage()
    gaps.batches = Gaps()
    train(gaps, settings(parallel="shard"), Path(folder) / "gaps")
    counting = stage(Counting, ("texts",))
    train(counting, settings(steps=2), Path(folder) / "counting")
    (Path(folder) / f"texts-{rank}").write_text(str(float(counting.model.texts)))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(process, (str(folder),), nprocs=2)
    train(stage(), settings(accumulate=2), folder / "one")
    train(stage(), settings(accumulate=2), folder / "half")
    return folder


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("how", ["replicate", "shard", "half", "again"])
def test_two_processes_learn_what_one_learns_from_twice_the_batch(runs, how):
    assert losses(runs / how) == pytest.approx(losses(runs / "one"), rel=1e-4)
    made, expected = (torch.load(runs / name / "final" / "model.pt") for name in (how, "one"))
    for name, value in expected.items():
        torch.testing.assert_close(made[name], value, atol=2e-5, rtol=1e-3, msg=name)


def test_a_process_without_a_batch_takes_part_and_counts_nothing(runs):
    gaps = stage()
    gaps.batches = Gaps()
    train(gaps, settings(accumulate=2), runs / "gaps-one")
    made, expected = (torch.load(runs / name / "final" / "model.pt") for name in ("gaps", "gaps-one"))
    for name, value in expected.items():
        torch.testing.assert_close(made[name], value, atol=2e-5, rtol=1e-3, msg=name)


def test_what_a_batch_moves_beside_parameters_is_the_same_in_every_process(runs):
    assert (runs / "texts-0").read_text() == (runs / "texts-1").read_text()


def test_what_was_cut_was_saved_in_pieces(runs):
    assert (runs / "half" / "step-3" / ".metadata").is_file() and (runs / "half" / "step-6" / "state.pt").is_file()
    assert len(list((runs / "shard" / "step-6").glob("*.distcp"))) == 2
    assert len(json.loads((runs / "shard" / "step-6" / "sums.json").read_text())) == 3


@pytest.mark.parametrize("damage", ["a flipped bit", "cut", "missing", "no sums and cut", "sums that are none"])
def test_broken_pieces_are_passed_over(runs, tmp_path, caplog, damage):
    out = tmp_path / "shard"
    shutil.copytree(runs / "shard", out)
    piece, sums = next((out / "step-6").glob("__1*.distcp")), out / "step-6" / "sums.json"
    content = piece.read_bytes()
    at = len(content) // 2  # inside of a tensor
    if damage == "a flipped bit":
        piece.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    elif "cut" in damage:
        piece.write_bytes(content[:50])
    elif damage == "sums that are none":
        sums.write_text("[]")
    for path in {"missing": [piece], "no sums and cut": [sums]}.get(damage, []):
        path.unlink()
    train(stage(), settings(accumulate=2), out)
    assert "step-6" in caplog.text and losses(out) == pytest.approx(losses(runs / "one"), rel=1e-4)


def test_what_cannot_be_cut_or_split_is_refused_by_name(monkeypatch):
    with pytest.raises(ConfigError, match="one player"):
        check_shardable(game()[0], settings())
    with pytest.raises(ConfigError, match="cannot translate or find units"):
        check_shardable(replace(stage(), evaluates_parts=True), settings())
    with pytest.raises(ConfigError, match="no schedule"):
        check_shardable(stage(), settings(schedule=(Moves(names="scale"),)))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert load_recipe("recipes/debug/encode.yaml")
    with pytest.raises(ConfigError, match="stage encode runs in one process"):
        run_recipe("recipes/debug/encode.yaml")
