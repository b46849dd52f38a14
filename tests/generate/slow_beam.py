"""Beam search for one sentence, one prefix at a time, without any cache: the slow twin."""

from echox.generate.beam import Hypothesis


def beam_search_reference(score, search):
    """Return what `beam_search` does for one sentence whose `score` maps a prefix (with BOS) to logits (V,), without any cache."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    ended: list[Hypothesis] = []
    for length in range(1, search.max_tokens + 1):
        candidates = []
        for total, said in beams:
            found = score([search.bos, *said]).float().log_softmax(-1)
            for token, value in enumerate(found.tolist()):
                if token not in (search.bos, *search.never) and not _repeats([*said, token], search.no_repeat_ngram):
                    candidates.append((total + value, [*said, token]))
        candidates = sorted(candidates, key=lambda one: -one[0])[: 2 * search.beams]
        for total, said in candidates[: search.beams]:
            if said[-1] == search.eos:
                ended.append(Hypothesis(said[:-1], total / length**search.length_penalty))
        beams = [one for one in candidates if one[1][-1] != search.eos][: search.beams]
        if len(ended) >= search.beams or not beams:
            break
    if not ended:
        return Hypothesis(beams[0][1], beams[0][0] / len(beams[0][1]) ** search.length_penalty, False)
    return max(ended, key=lambda one: one.score)


def _repeats(said: list[int], n: int) -> bool:
    runs = [tuple(said[i : i + n]) for i in range(len(said) - n + 1)] if n else []
    return len(runs) > 1 and runs[-1] in runs[:-1]
