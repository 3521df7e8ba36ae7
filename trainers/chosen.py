"""Settings that are not a class's defaults: what serves and what is measured beside, with the value that speaks for it.

`NDCG@10 a (b)` is of all items and, in brackets, of those that are new to the visitor. Where nothing else is said, it
is measured on the Complete Journey: learnt from what was bought before the last two weeks of training, asked about
these, by `PYTHONPATH=. python bench/chosen.py --export FOLDER` on the demo's export; the test is not looked at.
"""

from typing import Any

from trainers.rankers import RankerKind

RANKER = RankerKind.NETWORK
"""As good as trees by NDCG@10 of all items, .2376 and .2356 (trees less network: -0.0020, 95 % -0.0081 to 0.0040),
worse for items that are new to the visitor, .0293 and .0355 (0.0062, 95 % 0.0019 to 0.0112), and learnt in half their
time, 26 and 56 s of processor. Every third visitor of the same two weeks, five weekly cuts, seed 0: the table of
rankers in bench/, whose kinds `shopkeeper train --ranker network | trees` makes.
"""

TIFU_KNN: dict[str, Any] = {"n_groups": 1, "within": 0.97, "n_items_kept": 300}
"""Of the lists that serve: no groups, so that the age of a basket alone says what it weighs.

NDCG@10 .2152 (.0183), recall at the 300 items of a list .4689: as good a proposal as the seven groups of the class,
.2167 (.0182) and .4687, with one weight a basket; the ranker, not the list, puts the items in order.
"""

TIFU_KNN_BASELINE: dict[str, Any] = {"alpha": 0.7}
"""Of the baseline, the share that Hu et al. 2020 publish with seven groups: NDCG@10 .2151 (.0182), and .2167 (.0182)
with the share of the class."""

SEQUENTIAL_RULES: dict[str, Any] = {"damping": (0.5, 0.0)}
"""Of the baseline: NDCG@10 .0932 (.0156), and .0751 (.0153) undamped."""

IALS: dict[str, Any] = {"n_factors": 64, "n_iterations": 8}
"""Of the baseline: NDCG@10 .0776 (.0191) with half the factors and two thirds of the iterations of the class, which has
.0792 (.0199)."""
