"""Stage times: each part's own time, the innermost part's where one runs inside another, and no hooks left behind."""

from types import SimpleNamespace

import torch
from eval_fakes import Clock

from echox.eval.tasks.latency import modules_of, part_seconds, part_table


class Part(torch.nn.Module):
    """Takes `seconds` of a fake clock, then runs what is inside, then takes as long again."""

    def __init__(self, clock, seconds, inside=None):
        super().__init__()
        self.clock, self.seconds, self.llm = clock, seconds, inside

    def forward(self):
        self.clock.now += self.seconds
        if self.llm is not None:
            self.llm()
        self.clock.now += self.seconds


def test_time_goes_to_the_innermost_part_and_hooks_are_taken_off():
    clock = Clock()
    s2t = Part(clock, 1.0, inside=Part(clock, 10.0))
    subject = SimpleNamespace(parts=SimpleNamespace(s2t=s2t, encoder=Part(clock, 0.25), tokenizer=None))
    stages = modules_of(subject)
    assert list(stages) == ["llm", "encoder", "s2t"]
    with part_seconds(stages, clock) as found:
        subject.parts.encoder()
        clock.now += 5  # nobody's
        s2t()
        s2t()
    assert found == {"llm": 40.0, "encoder": 0.5, "s2t": 4.0}
    s2t()
    assert found["llm"] == 40.0
    rows = {row[0]: row[1:] for row in part_table(found, 49.5, 2).rows}
    assert rows["llm"] == ("20.000", "81") and rows["other"] == ("2.500", "10")


def test_a_part_that_fails_does_not_keep_the_clock():
    class Broken(torch.nn.Module):
        def forward(self):
            raise RuntimeError

    clock, broken = Clock(), Broken()
    with part_seconds({"echo": broken}, clock) as found:
        try:
            broken()
        except RuntimeError:
            clock.now += 9
        clock.now += 9
    assert found == {"echo": 0.0}


def test_models_without_parts_have_no_stages():
    assert modules_of(SimpleNamespace()) == {}
