"""What a run says where nobody sees a bar: its first numbers, one line in a while, its last."""

import json

import pytest

from echox.errors import OutputError
from echox.train import log
from echox.train.log import MetricsLog


def test_without_a_terminal_a_line_says_now_and_then_how_far_a_run_is(tmp_path, capsys, monkeypatch):
    now = iter(range(0, 1000, 4))
    monkeypatch.setattr(log.time, "monotonic", lambda: float(next(now)))
    with log.MetricsLog(tmp_path / "t2c", steps=100, first=0) as metrics:
        for step in range(1, 101):
            metrics.write(step, {"loss": 2.0}, every=5)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) in (4, 5)
    assert lines[0].startswith("t2c: step 5 of 100, loss 2.000, ") and lines[-1].startswith("t2c: step 100 of 100, ")


def test_small_numbers_are_written_with_all_their_digits(tmp_path):
    with log.MetricsLog(tmp_path, steps=1, first=0) as metrics:
        metrics.write(1, {"lr": 1.5e-7, "tokens_per_second": 12345.678}, every=1)
    assert json.loads((tmp_path / log.METRICS).read_text()) == {"step": 1, "lr": 1.5e-7, "tokens_per_second": 12345.7}


def test_somebody_elses_file_of_that_name_is_not_emptied(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for text in ("mine\n", '{"loss": 1}\n', '{"step": 1, "loss": 2.0}\nnotes\n'):
        path.write_text(text)
        with pytest.raises(OutputError, match="holds no metrics of a run"), MetricsLog(tmp_path, 10, 0):
            pass
        assert path.read_text() == text
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    with MetricsLog(tmp_path, 10, 1):
        pass
    assert path.read_text() == '{"step": 1, "loss": 2.0}\n'
