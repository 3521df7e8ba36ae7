"""Measure the settings of `trainers/chosen.py` beside the defaults of their classes, on the weeks before the split.

Learns from what was bought before the last two weeks of training and asks about these: no test is looked at.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from trainers import chosen
from trainers.als import Als
from trainers.base import DAY_MS
from trainers.baselines import learnt
from trainers.dataset import read_export
from trainers.evaluate import at_cut, measure, ranks_of_scores
from trainers.protocols import NextBasketQuestion, tasks_of
from trainers.schedule import split_of
from trainers.sequential_rules import SequentialRules
from trainers.tifu_knn import TifuKnn

MODELS = {
    "TIFU-KNN, class": TifuKnn,
    "TIFU-KNN, as baseline": lambda: TifuKnn(**chosen.TIFU_KNN_BASELINE),
    "TIFU-KNN, as served": lambda: TifuKnn(**chosen.TIFU_KNN),
    "sequential-rules, class": lambda: SequentialRules(actions=()),
    "sequential-rules, chosen": lambda: SequentialRules(**chosen.SEQUENTIAL_RULES, actions=()),
    "iALS, class": Als,
    "iALS, chosen": lambda: Als(**chosen.IALS),
}
_WEEKS_MS = 14 * DAY_MS
_LISTED = 300


def main(export: Annotated[Path, typer.Option(help="Folder of an export, e.g. the demo's.")]) -> None:
    """Print a line of JSON for each model: NDCG and recall at 10, and recall at the length of a list."""
    found = read_export(export)
    split_ms = split_of(found)
    question = NextBasketQuestion(min_buyers=10, min_baskets=5, min_items=3)
    task = question.task(found.dataset, split_ms - _WEEKS_MS, until_ms=split_ms)
    tasks = tasks_of(task.of_kept_items())
    for name, make in MODELS.items():
        ranks = ranks_of_scores(list(tasks.values()), learnt(make(), tasks["all"].train))
        row: dict[str, object] = {"model": name}
        for (of, task), of_task in zip(tasks.items(), ranks, strict=True):
            means = measure(task, of_task).means()
            row |= {f"{of}/{metric}": round(means[metric], 4) for metric in ("ndcg_at_10", "recall_at_10")}
            size = task.offsets[1:] - task.offsets[:-1]
            hits = at_cut(of_task, task.offsets, _LISTED).hits[size > 0]
            row[f"{of}/recall_at_{_LISTED}"] = round(float((hits / size[size > 0]).mean()), 4)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    typer.run(main)
