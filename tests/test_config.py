"""Recipes from files, from the installed package, and with overrides that are not YAML."""

import os

import pytest

from echox.config import load
from echox.config.shard import shard_of
from echox.errors import ConfigError
from echox.train.stages import load_recipe


def test_a_recipe_that_is_not_here_comes_from_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "site" / "echox"
    (package / "recipes").mkdir(parents=True)
    (package / "recipes" / "a.yaml").write_text("from: package")
    monkeypatch.setattr(load, "__file__", str(package / "config" / "load.py"))
    assert load.read_yaml("recipes/a.yaml") == {"from": "package"}
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "a.yaml").write_text("from: here")
    assert load.read_yaml("recipes/a.yaml") == {"from": "here"}
    with pytest.raises(ConfigError, match="recipes/b.yaml"):
        load.read_yaml("recipes/b.yaml")


@pytest.mark.parametrize("override", ["a=[1", "a", "=1", "a.b=1"])
def test_overrides_that_cannot_be_read_are_named(tmp_path, override):
    (tmp_path / "r.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match="override"):
        load.read_yaml(tmp_path / "r.yaml", [override])


@pytest.mark.parametrize(
    "text",
    [
        "out: 2020-99-99",
        "stage: [t2c]",
        "stage: {t2c: 1}",
        "stage: !!python/object/apply:os.system [x]",
        "a: &a [" + "1, " * 1000 + "]\nb: &b [" + "*a, " * 1000 + "]\nstage: *b",
        "a: &a [*a, *a]",
        "[" * 5000,
        "? [x]\n: y",
        "\0",
        "- 1",
        "",
    ],
)
def test_recipes_that_are_none_are_one_sentence(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(tmp_path / "r.yaml")
    assert "r.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_recipes_are_small_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "big.yaml").write_text("a: 1\n" * 300_000)
    for name in ("/dev/zero", tmp_path / "pipe.yaml", tmp_path / "big.yaml", tmp_path / ("n" * 300), tmp_path):
        with pytest.raises(ConfigError):
            load_recipe(name)


@pytest.mark.parametrize("stage", ["teacher", "t2c", "textless"])
@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_is_what_numpy_and_torch_both_take(stage, seed):
    with pytest.raises(ConfigError, match="seed"):
        load_recipe(f"recipes/debug/{stage}.yaml", [f"seed={seed}"])
    assert load_recipe(f"recipes/debug/{stage}.yaml", [f"seed={2**63 - 1}"]).seed == 2**63 - 1


@pytest.mark.parametrize(
    ("stage", "override", "sentence"),
    [
        ("t2c", "train.stps=2", "unknown key 'train.stps': choose from accumulate, "),
        ("t2c", "train={stps: 2}", "unknown key 'train.stps': choose from accumulate, "),
        ("t2c", "train={}", "train.steps is missing: give it a value."),
        ("t2c", "train=5", "train is 5, and should be a group of settings."),
        (
            "t2c",
            "train.steps=two",
            "train.steps: 'two' should be a valid integer, unable to parse string as an integer.",
        ),
        (
            "t2c",
            "model.width=wide",
            "model.width: 'wide' should be a valid integer, unable to parse string as an integer.",
        ),
        ("t2c", "data.corpora=5", "data.corpora is 5, and should be a list."),
        ("t2c", "out=", "out is None, and should be a path."),
        ("t2c", "train.steps.x=2", "override 'train.steps.x=2': steps is a value, not a group of settings."),
        ("echo", "voiced.nope=1", "unknown key 'voiced.nope': choose from corpora, frames, units."),
        ("textless", "tasks.x.nope=1", "unknown key 'tasks.x.nope': choose from cut, dropout, language, "),
    ],
)
def test_a_wrong_override_is_one_sentence_of_recipe_key_and_value(stage, override, sentence):
    recipe = f"recipes/debug/{stage}.yaml"
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe, [override])
    told = str(caught.value)
    assert told.startswith(f"{recipe}: {sentence}") and told.endswith(".") and "\n" not in told


@pytest.mark.parametrize(
    ("stage", "override"),
    [
        ("align", "negatives=-1"),
        ("s2t", "typed_probability=1.5"),
        ("t2c", "data.space_probability=-0.1"),
        ("t2c", "smoothing=1"),
        ("listen", "smoothing=1"),
        ("listen", "encoder_layer=0"),
        ("listen", "held_out_batches=-1"),
        ("listen", "data.corpora=[]"),
        ("listen", "data.windows={0: 1.0}"),
        ("listen", "data.gap_seconds=[1.0, 0.5]"),
        ("pack_joint", "length_penalty=-1"),
        ("translator", "length_penalty=2000"),
        ("t2c", "train.optim.betas=[0.9, 1]"),
        ("echo", "questions=-5"),
        ("echo", "llm_batch=0"),
        ("echo", "weights.denoising_cap=-0.2"),
        ("units", "k=40000"),
        ("teacher", "texts=[{path: x, take: -1}]"),
        ("vocoder", "vocoder.held_out=-1"),
        ("vocoder", "vocoder.loss.gan_ramp=0"),
        ("vocoder", "vocoder.loss.resolutions=[[1024, 120, 80]]"),
        ("voice", "voice.batch_size=0"),
        ("answers", "own_questions=-1"),
        ("text_pairs", "words=[14, 4]"),
        ("pack", "llm_folder=out/debug/llm"),
    ],
)
def test_a_number_that_means_nothing_is_refused_before_anything_is_read(stage, override):
    overrides = ["llm={file: x}", override] if stage == "pack" else [override]
    with pytest.raises(ConfigError, match=override.partition("=")[0].rpartition(".")[2]):
        load_recipe(f"recipes/debug/{stage}.yaml", overrides)


def test_a_size_of_t2c_may_be_none():
    assert load_recipe("recipes/debug/t2c.yaml", ["model.words_in=null"]).model["words_in"] is None


def test_a_file_as_out_is_refused_before_anything_is_built(tmp_path):
    (tmp_path / "file").touch()
    for place in ("file", "file/deeper/run"):
        with pytest.raises(ConfigError, match=r"^recipes/debug/t2c.yaml: out is .*file is a file: give a folder\.$"):
            load_recipe("recipes/debug/t2c.yaml", [f"out={tmp_path / place}"])
    assert load_recipe("recipes/debug/t2c.yaml", [f"out={tmp_path / 'new' / 'run'}"]).out == tmp_path / "new" / "run"


@pytest.mark.parametrize("given", ["2/2", "a/b", "1", "-1/2", "0/0", "0/1/2", [2, 2], [0], None])
def test_a_shard_is_two_numbers(given):
    assert shard_of("1/4") == shard_of([1, 4]) == (1, 4)
    with pytest.raises(ConfigError, match="is not I/N"):
        shard_of(given)
    with pytest.raises(ConfigError, match="^recipes/debug/encode.yaml: shard .* is not I/N"):
        load_recipe("recipes/debug/encode.yaml", [f"shard={given}"])
