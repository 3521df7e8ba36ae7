"""The ranker as boosted trees, one ensemble an action."""

from typing import Any

import lightgbm
import numpy as np
import onnx
from numpy.typing import NDArray

from trainers.base import Progress
from trainers.ranker import Ranker, Rows
from trainers.tree_graph import Ensemble, graph_of

_LEAST_SHARE = 200
"""A leaf of a small shop holds at least one row in so many."""


class TreeRanker(Ranker):
    """Gradient-boosted trees of LightGBM under cross-entropy.

    A tree asks about the exposure or about features, never about both, so that what an item is and where it was shown
    add up in the logit: the order of what is served is the same whatever exposure it is judged at. Calibration is
    folded into the leaves, so the exported graph is trees and a logistic function.

    Parameters
    ----------
    trees : int
        Of each action.
    leaves : int
        Most leaves of a tree.
    learning_rate : float
        Share of a tree's answer that is kept.
    least_rows : int
        Least rows of a leaf; fewer in a small shop.
    without : tuple[int, ...]
        Columns that it must not read.
    seed : int

    Attributes
    ----------
    boosters_ : list[lightgbm.Booster]
        Trees of each action, with the exposure as the last column.

    References
    ----------
    Ke et al. 2017, LightGBM. Zhao et al. 2019, Recommending what video to watch next, section 4.3, for the position as
    a part of its own in the logit.
    """

    boosters_: list[lightgbm.Booster]

    def __init__(  # noqa: PLR0913 - hyper-parameters
        self,
        *,
        trees: int = 300,
        leaves: int = 15,
        learning_rate: float = 0.05,
        least_rows: int = 300,
        without: tuple[int, ...] = (),
        seed: int = 0,
    ) -> None:
        self.trees = trees
        self.leaves = leaves
        self.learning_rate = learning_rate
        self.least_rows = least_rows
        self.without = without
        self.seed = seed

    def graph(self) -> onnx.ModelProto:
        """Return the trees as ONNX: `features` (n, d) to `actions` (n, h)."""
        boosters = self._boosters()
        pairs = zip(boosters, self.calibrations_, strict=True)
        ensembles = [Ensemble(_roots(booster), calibration.slope, calibration.offset) for booster, calibration in pairs]
        return graph_of(ensembles, boosters[0].num_feature() - 1)

    def _learn(self, rows: Rows, progress: Progress) -> None:
        table = np.column_stack([rows.features, rows.exposure])
        table[:, list(self.without)] = 0
        apart = [[*range(rows.features.shape[1])], [rows.features.shape[1]]]
        params = self._params(len(rows)) | ({"interaction_constraints": apart} if rows.positions.any() else {})
        data = lightgbm.Dataset(table, params=params)
        self.boosters_ = [self._boost(data, rows, action, progress) for action in range(rows.labels.shape[1])]
        progress(1.0)

    def _logits(self, features: NDArray[np.float32], exposure: NDArray[np.float32]) -> NDArray[np.float64]:
        table = np.column_stack([features, exposure])
        return np.stack([np.asarray(booster.predict(table, raw_score=True)) for booster in self._boosters()], axis=1)

    def _params(self, count: int) -> dict[str, Any]:
        return {
            "objective": "binary",
            "num_leaves": self.leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": max(1, min(self.least_rows, count // _LEAST_SHARE)),
            "use_missing": False,
            "deterministic": True,
            "force_row_wise": True,
            "seed": self.seed,
            "num_threads": 1,  # threads that share few cores with others wait for each other longer than they work
            "verbosity": -1,
        }

    def _boost(self, data: lightgbm.Dataset, rows: Rows, action: int, progress: Progress) -> lightgbm.Booster:
        data.set_label(rows.labels[:, action].astype(np.float32))
        data.set_weight(np.ascontiguousarray(rows.weights[:, action]))
        count = rows.labels.shape[1]

        def tell(env: lightgbm.callback.CallbackEnv) -> None:
            progress((action + (env.iteration + 1) / self.trees) / count * 0.99)

        return lightgbm.train(data.params or {}, data, num_boost_round=self.trees, callbacks=[tell])

    def _boosters(self) -> list[lightgbm.Booster]:
        if not hasattr(self, "boosters_"):
            raise self.not_fitted()
        return self.boosters_


def _roots(booster: lightgbm.Booster) -> list[Any]:
    return [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
