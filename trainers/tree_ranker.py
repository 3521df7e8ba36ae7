"""The ranker as boosted trees, one ensemble an action, their probabilities calibrated on rows they did not see."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import lightgbm
import numpy as np
import onnx
from numpy.typing import NDArray
from scipy.special import expit

from trainers.base import Progress, no_progress
from trainers.calibration import Calibration, expected_error
from trainers.evaluate import Metric
from trainers.ranker import SERVED_EXPOSURE, Ranker, Rows, check_outcomes
from trainers.tree_graph import Ensemble, graph_of

_HELD_OUT = 10
"""One row in so many, the newest, is for calibration: half to fit it, half to measure it."""
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
    calibrations_ : list[Calibration]
    errors_ : list[tuple[Metric, Metric]]
        Expected calibration error of each action before and after; empty where there were too few rows to hold out.

    References
    ----------
    Ke et al. 2017, LightGBM. Zhao et al. 2019, Recommending what video to watch next, section 4.3, for the position as
    a part of its own in the logit.
    """

    boosters_: list[lightgbm.Booster]
    calibrations_: list[Calibration]
    errors_: list[tuple[Metric, Metric]]

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

    def fit(self, rows: Rows, progress: Progress = no_progress) -> Self:
        """Learn to tell the rows that an action followed from the others; the newest rows, at the end, calibrate.

        Raises
        ------
        ValueError
            When an action never or always followed.
        """
        check_outcomes(rows)
        table = np.column_stack([rows.features, rows.exposure])
        table[:, list(self.without)] = 0
        end = len(rows) - len(rows) // _HELD_OUT
        if not (rows.labels[:end].any(axis=0) & ~rows.labels[:end].all(axis=0)).all():
            end = len(rows)
        apart = [[*range(rows.features.shape[1])], [rows.features.shape[1]]]
        params = self._params(end) | ({"interaction_constraints": apart} if rows.positions.any() else {})
        data = lightgbm.Dataset(table[:end], weight=rows.weights[:end], params=params)
        count = rows.labels.shape[1]
        self.boosters_ = [
            self._boost(data, rows.labels[:end, action], (action, count, progress)) for action in range(count)
        ]
        self._calibrate(table[end:], rows.labels[end:], rows.weights[end:])
        progress(1.0)
        return self

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

    def _boost(
        self, data: lightgbm.Dataset, labels: NDArray[np.bool_], turn: tuple[int, int, Progress]
    ) -> lightgbm.Booster:
        action, count, progress = turn
        data.set_label(labels.astype(np.float32))

        def tell(env: lightgbm.callback.CallbackEnv) -> None:
            progress((action + (env.iteration + 1) / self.trees) / count * 0.99)

        return lightgbm.train(data.params or {}, data, num_boost_round=self.trees, callbacks=[tell])

    def _calibrate(self, table: NDArray[np.float32], labels: NDArray[np.bool_], weights: NDArray[np.float32]) -> None:
        """Fit the calibration of each action on every other held-out row, and measure it on the rest."""
        self.calibrations_, self.errors_ = [], []
        for booster, followed in zip(self.boosters_, labels.T, strict=True):
            if not len(table):
                self.calibrations_.append(Calibration())
                continue
            scores = _logits(booster, table)
            calibration = Calibration.fit(scores[::2], followed[::2], weights[::2])
            before, after = (
                expected_error(expit(values[1::2]), followed[1::2], weights[1::2], self.seed)
                for values in (scores, calibration.logits(scores))
            )
            self.calibrations_.append(calibration)
            self.errors_.append((before, after))

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability of each action for each row as if it were shown first, shape (n, h)."""
        table = np.column_stack([features, np.full(len(features), SERVED_EXPOSURE)])
        pairs = zip(self._boosters(), self.calibrations_, strict=True)
        logits = [calibration.logits(_logits(booster, table)) for booster, calibration in pairs]
        return np.asarray(expit(np.stack(logits, axis=1)), np.float32)

    def graph(self) -> onnx.ModelProto:
        """Return the trees as ONNX: `features` (n, d) to `actions` (n, h)."""
        boosters = self._boosters()
        pairs = zip(boosters, self.calibrations_, strict=True)
        ensembles = [Ensemble(_roots(booster), calibration.slope, calibration.offset) for booster, calibration in pairs]
        return graph_of(ensembles, boosters[0].num_feature() - 1)

    def metrics(self, actions: Sequence[str]) -> Mapping[str, Metric]:
        """Return the expected calibration error of each action before and after calibration."""
        named = zip(actions, self.errors_, strict=False)
        return {
            f"{action}/calibration_error_{when}": error
            for action, errors in named
            for when, error in zip(("before", "after"), errors, strict=True)
        }

    def _boosters(self) -> list[lightgbm.Booster]:
        if not hasattr(self, "boosters_"):
            raise self.not_fitted()
        return self.boosters_


def _logits(booster: lightgbm.Booster, table: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(booster.predict(table, raw_score=True), np.float64)


def _roots(booster: lightgbm.Booster) -> list[Any]:
    return [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
