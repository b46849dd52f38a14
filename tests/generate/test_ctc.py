"""What CTC writes: greedy beside a loop, the beam beside every alignment there is."""

import itertools
from collections import defaultdict

import pytest
import torch

from echox.errors import ConfigError
from echox.generate.ctc import greedy, prefix_beam


def collapse(path, blank=0):
    return tuple(token for token, _ in itertools.groupby(path) if token != blank)


def test_greedy_joins_repeats_and_drops_blanks_and_padding():
    paths = [[0, 3, 3, 0, 3, 2], [1, 1, 2, 2, 2, 2]]
    logits = torch.nn.functional.one_hot(torch.tensor(paths), 4).float()
    assert greedy(logits, torch.tensor([6, 2]), blank=0) == [[3, 3, 2], [1]]
    assert greedy(logits[:, :1], torch.tensor([1, 0]), blank=0) == [[], []]


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_finds_what_all_alignments_together_make_likeliest(seed):
    torch.manual_seed(seed)
    logits = 2 * torch.randn(1, 5, 3)
    log_probs = logits[0].log_softmax(-1)
    sums = defaultdict(float)
    for path in itertools.product(range(3), repeat=5):
        sums[collapse(path)] += float(torch.stack([log_probs[t, token] for t, token in enumerate(path)]).sum().exp())
    best = max(sums, key=lambda text: sums[text])
    assert tuple(prefix_beam(logits, torch.tensor([5]), blank=0, beam=1000)[0]) == best


def test_the_beam_hears_what_greedy_misses():
    """Twice 0.4 + 0.3 for a word beats 0.6 * 0.6 of silence only when ways are summed."""
    probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]])
    assert greedy(probs.log(), torch.tensor([2]), blank=0) == [[]]
    assert prefix_beam(probs.log(), torch.tensor([2]), blank=0) == [[1]]
    for narrow in ({"beam": 1}, {"classes": 1}):
        assert prefix_beam(probs.log(), torch.tensor([2]), blank=0, **narrow) == [[]]
    with pytest.raises(ConfigError, match="beam is 0"):
        prefix_beam(probs.log(), torch.tensor([2]), blank=0, beam=0)
