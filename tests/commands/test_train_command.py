"""`echox train` hands the recipe and its overrides on, and says in one sentence what is wrong with them."""

import sys

import pytest

from echox import cli


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["echox", "train", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, capsys.readouterr().err


def test_a_missing_or_misspelt_recipe_ends_with_1_and_a_sentence(tmp_path, monkeypatch, capsys):
    status, err = run(monkeypatch, capsys, tmp_path / "none.yaml")
    assert status == 1 and "none.yaml" in err and err.count("\n") == 1
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("stage: nonsense\n")
    status, err = run(monkeypatch, capsys, recipe)
    assert status == 1 and "nonsense" in err and "vocoder" in err
    recipe.write_text("stage: vocoder\nvocodr: {}\n")
    status, err = run(monkeypatch, capsys, recipe)
    assert status == 1 and "Traceback" not in err and str(recipe) in err


def test_overrides_reach_the_recipe(tmp_path, monkeypatch, capsys):
    import echox.train.stages

    seen = []

    def run_recipe(path, overrides):
        seen.append((str(path), list(overrides)))
        return tmp_path

    monkeypatch.setattr(echox.train.stages, "run_recipe", run_recipe)
    status, _ = run(monkeypatch, capsys, "recipe.yaml", "train.steps=3", "seed=1")
    assert not status and seen == [("recipe.yaml", ["train.steps=3", "seed=1"])]
    run(monkeypatch, capsys, "recipe.yaml", "seed=1", "--shard", "1/4")
    assert seen[1] == ("recipe.yaml", ["seed=1", "shard=1/4"])
