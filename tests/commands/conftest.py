"""The command line with an assistant that needs no weights."""

import sys

import pytest

from echox import cli
from echox.commands import answers
from echox.generate.fake import FakeAssistant


@pytest.fixture
def loads(monkeypatch):
    """Load the fake; returns what was asked to be loaded."""
    seen = []

    def load(*arguments, **places):
        seen.append(arguments)
        return FakeAssistant()

    monkeypatch.setattr(answers, "load_assistant", load)
    return seen


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, loads):
    """Run `echox` with arguments in an empty folder; returns (status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["echox", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return ended.value.code or 0, out, err

    return call
