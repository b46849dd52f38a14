"""What spoken questions keep of what the text model knows: the measure with power for small models.

T2T is the text model with its adapters off, asked in writing. Of a spoken set (`spoken_set.py`), by arm:

    kept        of the questions that T2T answers right, the share that is still right
    gained      of those that T2T answers wrong, the share that is right by luck or repair
    same text   the share of answers that are T2T's, letter by letter
    net         accuracy / T2T's accuracy, both over the whole pool that the set was chosen from

The set holds nearly all right questions of its pool but few of the wrong ones, so each question counts for as many of
its kind as it stands for: net = (kept + gains of all wrong ones) / right ones. Resampling keeps the kinds apart.
"""

from typing import Any

import numpy as np

from echox.eval import stats
from echox.eval.tables import Items, Table, arms_of, names_note, percent

TYPED_ARMS = ("t2t-off", "t2t")
"""Arms that may be called T2T, the first one there is."""


def retention_table(settings: dict[str, Any], items: Items) -> Table:
    """Return what every arm keeps of T2T, with intervals, over the questions that both have answered.

    `settings["retention"]` is {"pool": {kind: questions}}. No rows where no typed arm was run.
    """
    pool = settings["retention"]["pool"]
    arms = arms_of(items)
    base = next((arm for arm in TYPED_ARMS if arm in arms), None)
    rows = [_row(items, arm, base, pool) for arm in arms if base and arm != base]
    note = (
        f"{names_note(settings)}; T2T: {base}. Set {settings.get('questions', '?')}: of a pool of {sum(pool.values())} "
    )
    note += (
        f"questions, {', '.join(f'{count} {kind}' for kind, count in pool.items())}. Net: accuracy over the pool as "
    )
    note += "a share of T2T's, the wrong ones of the set standing for all of them. 95 % bootstrap within each kind."
    head = ("arm", "n", "right by T2T", "kept %", "wrong by T2T", "gained %", "same text %", "net of gains %")
    return Table("Retention", head, tuple(rows), note)


def _row(items: Items, arm: str, base: str, pool: dict[str, int]) -> tuple[str, ...]:
    own, typed = ({item["id"]: item for item in items if item["arm"] == name} for name in (arm, base))
    shared = [id for id in typed if id in own]
    scores_N2 = np.array([[float(own[id]["score"]), float(typed[id]["score"])] for id in shared]).reshape(-1, 2)
    same = [own[id]["text"].strip() == typed[id]["text"].strip() for id in shared]
    right = scores_N2[:, 1] > 0
    kinds = np.array([typed[id].get("kind", "") for id in shared])
    strata = [(float(count), scores_N2[kinds == kind]) for kind, count in pool.items() if (kinds == kind).any()]
    shares = [stats.mean(scores_N2[right, 0]), stats.mean(scores_N2[~right, 0]), stats.mean(np.array(same, float))]
    kept, gained, alike = map(percent, shares)
    counts = (str(len(shared)), str(int(right.sum())), str(int((~right).sum())))
    net = percent(stats.stratified_ratio(strata)) if sum(count > 0 for count in pool.values()) == len(strata) else "-"
    return (arm, counts[0], counts[1], kept, counts[2], gained, alike, net)
