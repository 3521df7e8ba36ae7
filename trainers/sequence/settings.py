"""How a sequence model learns."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Training:
    """Hyper-parameters of learning that both sequence models share.

    Attributes
    ----------
    window : int
        Last events of a history that are read.
    negatives : int
        Items drawn for each batch, shared by all its targets.
    power : float
        Items are drawn in proportion to their count to this power; 0 is uniform.
    batch_targets : int
        Targets of one step; a small shop takes fewer, so that an epoch has a number of steps.
    learning_rate : float
        Of Adam; constant after a warm-up.
    weight_decay : float
    average : float
        Share that the moving average of the weights keeps at each step; the average is what is measured and kept.
    epochs : int
        Most passes over the data.
    patience : int
        Epochs without a better measure after which learning ends.
    """

    window: int = 50
    negatives: int = 512
    power: float = 0.5
    batch_targets: int = 1024
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    average: float = 0.995
    epochs: int = 100
    patience: int = 5


DEFAULT_TRAINING = Training()
"""How a model learns by default."""
