"""The short form of the fuzzer: a few dozen hostile cases, each in a forked process; docs/safety.md has the long form."""

import sys

import pytest

CASES = range(80)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks and limits as on Linux")
def test_hostile_input_ends_in_a_sentence_and_changes_nothing(tmp_path):
    from tests.fuzz.driver import campaign, preload
    from tests.fuzz.world import write_world

    preload()
    counts, findings, _ = campaign(write_world(tmp_path), CASES)
    assert not findings, "\n".join(findings)
    assert sum(counts.values()) == len(CASES) and len({kind for kind, _ in counts}) == 10
