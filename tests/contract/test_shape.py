"""The shape of the code: short files, short functions, few arguments, docstrings, legends, recipes that load."""

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "echox").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
FILE_LINES, FUNCTION_LINES, ARGUMENTS = 400, 60, 8


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_files_and_functions_are_short(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= FILE_LINES
    for function in functions(ast.parse(text)):
        lines = (function.end_lineno or 0) - function.lineno + 1
        assert lines <= FUNCTION_LINES, f"{function.name} has {lines} lines"
        given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        count = len([argument for argument in given if argument.arg not in ("self", "cls")])
        assert count <= ARGUMENTS or "commands" in path.parts, f"{function.name} takes {count} arguments"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_public_names_have_docstrings_and_types(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.name != "__init__.py" or tree.body:
        assert ast.get_docstring(tree), "the module has no docstring"
    top = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    for node in top:
        if node.name.startswith("_"):
            continue
        assert ast.get_docstring(node), f"{node.name} has no docstring"
        if not isinstance(node, ast.ClassDef):
            named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [argument.arg for argument in named if argument.annotation is None]
            assert not bare and node.returns is not None, f"{node.name} has untyped {bare or 'result'}"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_no_bare_except_and_no_work_at_import(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: a bare except"
    for node in tree.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            raise AssertionError(f"line {node.lineno}: a call at import")
    assert "torch.cuda" not in "\n".join(ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign))


SHAPED = [
    path
    for path in MODULES
    if path.parent.name == "models" and re.search(r"\b[a-z]\w*_[BTSDUFNHVL]{2,}\b", path.read_text())
]


@pytest.mark.parametrize("path", SHAPED, ids=lambda path: path.name)
def test_models_begin_with_a_legend_of_their_shapes(path):
    head = "\n".join(path.read_text(encoding="utf-8").splitlines()[:30])
    assert len(re.findall(r"\b[A-Z]\b[ ,:=]", head)) >= 2, "no legend of the shape suffixes in the first 30 lines"


def load(path: Path, *overrides: str) -> Any:
    from echox.config.load import read_yaml
    from echox.prepare.recipe import Recipe
    from echox.train.stages import load_recipe

    values = read_yaml(path, overrides)
    return Recipe.parse(values, str(path)) if values["stage"] == "data" else load_recipe(path, overrides)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_every_recipe_loads(path):
    assert load(path).stage


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_a_misspelt_key_is_refused_with_the_keys_that_exist(path):
    from echox.errors import ConfigError

    with pytest.raises(ConfigError) as caught:
        load(path, "misspelt_key=1")
    assert "misspelt_key" in str(caught.value) and "stage" in str(caught.value)


FREE = {"llm_source"}  # facts that are passed on, not settings


def groups(values: dict, prefix: str = "") -> list[str]:
    """The dotted names of all mappings inside a recipe."""
    found = []
    for key, value in values.items():
        if isinstance(value, dict) and key not in FREE:
            found += [f"{prefix}{key}", *groups(value, f"{prefix}{key}.")]
    return found


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_a_misspelt_key_is_refused_at_any_depth(path):
    from echox.config.load import read_yaml
    from echox.errors import ConfigError

    for group in groups(read_yaml(path)):
        with pytest.raises(ConfigError, match=r"misspelt_key|corpora\.misspelt"):
            load(path, f"{group}.misspelt_key=1")


@pytest.mark.parametrize("folder", ["mini", "debug"])
def test_what_a_recipe_reads_another_one_writes(folder):
    """`runs/<folder>.sh` runs them in order: a path under out/ that nobody made would be found hours later."""
    from echox.config.load import read_yaml
    from echox.train.stages import STAGES

    recipes = {path.stem: read_yaml(path) for path in (ROOT / "recipes" / folder).glob("*.yaml")}
    outs = {str(values["out"]) for values in recipes.values() if "out" in values}
    made = outs | {f"out/{folder}/{name}" for name in ("data", "llm", "encoder", "whisper", "whisper-tiny.en")}

    def strings(value):
        if isinstance(value, dict):
            return [text for key, child in value.items() if key != "out" for text in strings(child)]
        return [text for child in value for text in strings(child)] if isinstance(value, list) else [value]

    for name, values in recipes.items():
        assert values["stage"] in STAGES or name == "data"
        for text in strings(values):
            if isinstance(text, str) and text.startswith(("out/", "work/")):
                assert any(text == one or text.startswith(f"{one}/") for one in made), f"{name}: nobody makes {text}"


def test_public_names_are_these_and_exist():
    """A name leaves or joins the public surface only together with this list and the CHANGELOG."""
    echox = importlib.import_module("echox")
    errors = {
        "ConfigError",
        "EchoxError",
        "EndpointError",
        "InputError",
        "MissingDependency",
        "ModelError",
        "OutputError",
    }
    assert set(echox.__all__) == errors | {
        "Assistant",
        "Piece",
        "Question",
        "Reply",
        "SpeechAssistant",
        "SpeechTranslator",
        "Translation",
        "Units",
        "__version__",
    }
    assert all(getattr(echox, name) is not None for name in echox.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        echox.nonsense  # noqa: B018


def test_test_files_have_names_of_their_own():
    """pytest imports test files by their bare names."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py") if not (path.parent / "__init__.py").exists()]
    assert len(names) == len(set(names))
