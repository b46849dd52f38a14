"""Who may import whom. The arrows of the tree point down; an import that points up fails here, wherever it stands.

errors
files
audio  hub  config            sounds, names, recipes
features  units  text         signals, units, words
models                        tensors in, tensors out
objectives  data  prepare     losses; records and batches; corpora
generate  train               answers; stages and their loop
released  assistant           whole systems
translator
realtime                      a client's end of the wire
eval
commands
cli  __main__
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from echox.cli import VERBS

PACKAGE = Path(__file__).resolve().parents[2] / "echox"
LOW = {"errors", "files", "audio", "hub", "config"}
SIGNALS = {"features", "units", "text"}
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "audio": {"errors", "files"},
    "hub": {"errors", "files"},
    "config": {"errors", "files", "__version__"},
    "features": LOW,
    "units": LOW,
    "text": LOW,
    "models": LOW | SIGNALS,
    "objectives": LOW | SIGNALS | {"models", "data"},
    "data": LOW | SIGNALS | {"models"},
    "prepare": LOW | SIGNALS | {"models", "data"},
    "generate": LOW | SIGNALS | {"models"},
    "train": LOW | SIGNALS | {"models", "objectives", "data", "prepare", "generate"},
    "released": LOW | SIGNALS | {"models", "generate"},
    "assistant": LOW | SIGNALS | {"models", "generate", "released"},
    "translator": LOW | SIGNALS | {"models", "generate", "assistant"},
    "serve": LOW | SIGNALS | {"assistant", "generate"},
    "realtime": {"errors"},
    "eval": LOW
    | SIGNALS
    | {"models", "data", "prepare", "generate", "assistant", "translator", "released", "realtime"},
    "commands": LOW
    | SIGNALS
    | {"models", "data", "prepare", "generate", "train", "released", "assistant", "translator", "eval", "serve"}
    | {"realtime"},
    "cli": {"errors", "commands", "__version__"},
    "__main__": {"cli"},
}
NEVER = {"generate": {"asyncio"}, "serve": {"torch"}}


def room_of(path: Path) -> str:
    """Return the name in the table above of a file of the package."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "hub" if first.startswith("hub_") else first


def imports_of(path: Path) -> list[str]:
    """Return every module that a file imports, wherever in the file, as full dotted names."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            module = node.module or ""
            found += [f"echox.{alias.name}" for alias in node.names] if module == "echox" else [module]
    return found


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    room = room_of(path)
    for module in imports_of(path):
        root, _, rest = module.partition(".")
        if root == "echox":
            target = re.sub("^hub_.*", "hub", rest.partition(".")[0])
            target = {"SpeechAssistant": "assistant", "SpeechTranslator": "translator"}.get(target, target)
            assert target == room or target in MAY_IMPORT[room], f"{room} may not import {module}"
        assert root not in NEVER.get(room, set()), f"{room} may not import {root}"


def test_the_table_knows_every_room_and_has_no_cycle():
    assert {room_of(path) for path in MODULES} <= set(MAY_IMPORT)
    placed: set[str] = set()
    while len(placed) < len(MAY_IMPORT):
        free = {room for room, below in MAY_IMPORT.items() if room not in placed and below & set(MAY_IMPORT) <= placed}
        assert free, f"a cycle among {set(MAY_IMPORT) - placed}"
        placed |= free


def graph() -> dict[str, set[str]]:
    """Return {module: modules it imports} of the package, wherever in a file; its root offers names and is left out."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in MODULES}
    found = {}
    for name, path in names.items():
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        froms = [node for node in tree if isinstance(node, ast.ImportFrom) and node.module]
        plain = set(imports_of(path)) | {f"{node.module}.{alias.name}" for node in froms for alias in node.names}
        found[name] = (plain & set(names)) - {name}
    return found


def test_modules_import_in_no_circle():
    left = graph()
    while free := {name for name, below in left.items() if not below & set(left)}:
        left = {name: below for name, below in left.items() if name not in free}
    assert not left, f"circles among {sorted(left)}"


def test_verbs_import_no_other_verb():
    verbs = {verb.target.partition(":")[0] for verb in VERBS.values()}
    for name, below in graph().items():
        assert name not in verbs or not below & verbs, (
            f"{name} imports {below & verbs}: what verbs share stands beside them"
        )


HEAVY = ["torch", "transformers", "peft", "numba", "faiss", "scipy", "pandas", "soundfile", "soxr", "huggingface_hub"]


@pytest.mark.parametrize("module", ["echox", "echox.cli", "echox.audio", "echox.hub", "echox.commands.ask"])
def test_importing_is_free(module):
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_imports_nothing_heavy_and_names_every_verb():
    code = (
        "import sys\nfrom echox import cli\nsys.argv = ['echox', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert all(
        verb in done.stdout
        for verb in (
            "ask",
            "say",
            "translate",
            "transcribe",
            "serve",
            "talk",
            "train",
            "units",
            "prepare",
            "eval",
            "convert",
        )
    )


@pytest.mark.parametrize(
    "verb", ["ask", "say", "translate", "transcribe", "serve", "talk", "train", "units", "prepare", "eval", "convert"]
)
def test_the_help_of_a_verb_imports_no_torch(verb):
    code = (
        f"import sys\nfrom echox import cli\nsys.argv = ['echox', '{verb}', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout and done.stderr.strip() == "False"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--version"], 0),
        (["answer"], 2),
        (["ask"], 2),
        (["ask", "--loudly"], 2),
        (["ask", "--typed", "Why?", "--max-seconds", "0"], 2),
        (["ask", "no-such-file.wav"], 1),
    ],
)
def test_what_needs_no_model_imports_nothing_heavy(arguments, status):
    code = (
        f"import sys\nfrom echox import cli\nsys.argv = ['echox', *{arguments}]\n"
        f"try:\n    cli.main()\nexcept SystemExit as end:\n    assert (end.code or 0) == {status}\n"
        f"assert not [name for name in {HEAVY} if name in sys.modules]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


SPARED = [
    "transformers.modeling_utils",
    "transformers.models.auto",
    "torch._dynamo",
    "torch.distributed.tensor",
    "peft",
]
SPARED += ["accelerate", "sympy", "scipy", "numba", "pandas", "sentencepiece", "rich"]


def test_who_asks_waits_for_no_model_code_of_others():
    code = (
        "import sys\nfrom echox import SpeechAssistant\nfrom transformers import DynamicCache, PreTrainedTokenizerFast\n"
        f"print([name for name in {SPARED} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def names_of(path: Path) -> set[str]:
    """Return what a module defines or imports at its top level."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        else:
            found |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return found


@pytest.mark.parametrize("folder", ["benchmarks", "examples"])
def test_scripts_that_no_test_runs_import_what_is_there(folder):
    for path in sorted((PACKAGE.parent / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("echox."):
                place = PACKAGE.parent / node.module.replace(".", "/")
                module = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
                missing = {alias.name for alias in node.names} - names_of(module)
                missing = {name for name in missing if not (place / f"{name}.py").exists()}
                assert not missing, f"{path.name} imports {missing} of {node.module}, which are not there"
