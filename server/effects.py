"""What moved a score: each feature in turn is set to the mean of all candidates, and the model is asked again."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core_rs import Plan, feature_names
from shopkeeper.v1.recommendation_service_pb2 import FeatureEffect, ItemTrace

Model = Callable[[NDArray[np.float32]], NDArray[np.float32] | None]
"""From features (n, d) to actions (n, h); None where it cannot answer."""

_NAMED: Final = 2
_MOST_ITEMS: Final = 20


def tell(traces: Sequence[Sequence[ItemTrace]], plan: Plan, model: Model) -> None:
    """Add to the first twenty items of each placement the two features that moved their scores most.

    An effect is the score less what it would be if the candidate were average in that feature. Nothing is added where
    the heuristic ranks.

    Parameters
    ----------
    traces : items shown, one sequence a placement of the plan
    model : the one that ranked
    """
    offsets = plan.slot_offsets
    for number, (items, weights) in enumerate(zip(traces, plan.action_weights, strict=True)):
        candidates = plan.features[offsets[number] : offsets[number + 1]]
        shown = [item for item in items[:_MOST_ITEMS] if item.features]
        if not len(candidates) or not shown:
            continue
        features = np.array([[feature.value for feature in item.features] for item in shown], np.float32)
        found = effects(features, candidates.mean(axis=0), model, np.array(weights, np.float32))
        for item, row in zip(shown, found, strict=True):
            strongest = np.argsort(-np.abs(row), kind="stable")[:_NAMED]
            item.moved_by.extend(
                FeatureEffect(name=feature_names()[column], effect=row[column]) for column in strongest if row[column]
            )


def effects(
    features: NDArray[np.float32], mean: NDArray[np.float32], model: Model, weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the effect of every feature on every score, shape (n, d); zeros where the model cannot answer.

    Parameters
    ----------
    features : shape (n, d)
    mean : shape (d,); put in each feature's place in turn
    weights : shape (h,); value of each action
    """
    count, width = features.shape
    changed = np.repeat(features, width, axis=0).reshape(count, width, width)
    changed[:, np.arange(width), np.arange(width)] = mean
    actions = model(np.concatenate([features, changed.reshape(-1, width)]))
    if actions is None:
        return np.zeros_like(features)
    scores = actions @ weights
    return np.asarray(scores[:count, None] - scores[count:].reshape(count, width), np.float32)
