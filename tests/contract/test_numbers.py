"""Every number and every shard that the command line takes has its bounds: outside them it is wrong usage, in one sentence."""

import pytest
from command_line import commands, wrong_usage

ZERO = {  # of these there may be none, or it is the first
    *"--seed --mic --waiting --requests-a-minute --turns --nothing --joins --retries --rate --think".split(),
    *"--held-out --layer --speaker --max-error --min-log-probability".split(),
}
NEGATIVE = {"--min-log-probability"}
SHARDS = ("3/2", "2/2", "0/0", "-1/2", "1", "x/y", "0/2/3")


def options():
    """Every (verb, option) that there is."""
    return [
        (verb, one.opts[0])
        for verb, command in commands().items()
        if verb
        for one in command.params
        if one.opts[0][0] == "-"
    ]


def refused(verb, option, value):
    """What is printed of a value that is wrong; nothing where it is taken, though other options may be missing."""
    said = wrong_usage([*verb.split(), option, value])
    return said if f"Invalid value for '{option}'" in said else ""


def test_numbers_outside_their_bounds_are_wrong_usage():
    taken, numbers = [], 0
    for verb, option in options():
        said = refused(verb, option, "x")
        whole = "valid int" in said
        if not (whole or "valid float" in said):
            continue
        numbers += 1
        values = [
            "nan",
            "inf",
            "-inf",
            *(["-1"] if option not in NEGATIVE else []),
            *(["0"] if option not in ZERO else []),
        ]
        taken += [f"{verb} {option} {value}" for value in values if not refused(verb, option, value)]
    assert taken == [] and numbers > 40


def test_shards_that_are_none_are_wrong_usage():
    found = [(verb, option) for verb, option in options() if option == "--shard"]
    taken = [f"{verb} {value}" for verb, option in found for value in SHARDS if not refused(verb, option, value)]
    assert taken == [] and len(found) > 4 and not refused(*found[0], "1/2")


@pytest.mark.parametrize("verb", ["translate", "transcribe", "eval translation"])
def test_a_beam_of_thousands_is_wrong_usage(verb):
    assert refused(verb, "--beam", "10000") and not refused(verb, "--beam", "100")
