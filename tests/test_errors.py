"""Optional packages: what is absent is named with the line that installs it; what others say is cut between words."""

import sys

import pytest

from echox.errors import LONGEST_REASON, MissingDependency, reason_of, require


def test_a_package_that_is_absent_inside_another_gives_its_own_line(tmp_path, monkeypatch):
    (tmp_path / "outer_package.py").write_text("import inner_package_x.part\n")
    (tmp_path / "broken_package.py").write_text("from json import nothing_of_that_name\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingDependency, match=r"run pip install inner_package_x\."):
        require("outer_package", "eval")
    with pytest.raises(MissingDependency, match=r'does not load .* run pip install "openechox\[eval\]" again'):
        require("broken_package", "eval")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match=r"^datasets is needed for this .* run pip install datasets\."):
        require("datasets", install="pip install datasets")


def test_what_somebody_elses_error_says_is_one_line_cut_between_words():
    said = (
        "Cannot find it on the local disk.\n\nTo enable look-ups of repositories, " + "set-HF-HUB-OFFLINE to 0. " * 20
    )
    reason = reason_of(OSError(said))
    assert len(reason) <= LONGEST_REASON and "\n" not in reason and reason.endswith(" ...")
    assert reason.removesuffix(" ...").split() == said.split()[: len(reason.split()) - 1]
    assert reason_of(OSError("x" * 200)) == "x" * (LONGEST_REASON - 4) + " ..."  # one word alone
    assert reason_of(OSError("x" * LONGEST_REASON)) == "x" * LONGEST_REASON
    assert (reason_of(OSError("no network. ")), reason_of(ValueError())) == ("no network", "ValueError")
