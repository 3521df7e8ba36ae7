"""The models that are in every bundle: what proposes items, whoever ranks them."""

import numpy as np

from trainers.base import Trainer
from trainers.chosen import TIFU_KNN
from trainers.dataset import ACTIONS, Dataset
from trainers.item_to_item import AlsoBought, AlsoViewed, BoughtTogether
from trainers.popular import Popular
from trainers.tifu_knn import TifuKnn
from trainers.user_to_user import UserToUser


def usual_models() -> list[tuple[Trainer, tuple[str, ...]]]:
    """Return every model that is in each bundle, not fitted yet, with the event types that it learns from."""
    return [
        (AlsoViewed(), AlsoViewed.actions),
        (AlsoBought(), AlsoBought.actions),
        (BoughtTogether(), BoughtTogether.actions),
        (TifuKnn(**TIFU_KNN), ("purchase",)),
        (UserToUser(), ("purchase",)),
        (Popular(), ("purchase",)),
    ]


def fitted_models(dataset: Dataset) -> list[Trainer]:
    """Return every model that is in each bundle and that `dataset` has rows for, fitted."""
    present = set(np.unique(dataset.action).tolist())
    return [
        model.fit(dataset)
        for model, actions in usual_models()
        if not present.isdisjoint(ACTIONS[name] for name in actions)
    ]
