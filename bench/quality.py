"""Run the public protocols of `shopkeeper evaluate`, keep their results, and print them as the tables of QUALITY.md.

Reads the data sets from the folder that SHOPKEEPER_REFERENCE names; `--tables` only prints what was kept.
"""

import datetime as dt
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, Final

import typer
from measure import machine

RESULTS: Final = Path(__file__).parent / "results" / "quality"
_BEAUTY: Final = ("loo", "beauty/Beauty.txt.gz", "--attributes", "beauty/Beauty_item2attributes.json.gz")
_DIGINETICA: Final = ("sessions", "diginetica/train_sessions.txt.gz", "diginetica/test_prefix_target.txt.gz")
_COUNTED: Final = "random,popular,personal popular,trend,item-kNN,sequential-rules,user-kNN,EASE,content,hybrid"
_OF_SESSIONS: Final = "random,popular,session popular,trend,item-kNN,sequential-rules,session-kNN,hybrid"
RUNS: Final = {
    "beauty": (*_BEAUTY, "--models", _COUNTED),
    "beauty_neural": (*_BEAUTY, "--models", "transformer"),
    "beauty_reordered": ("loo", "beauty/tie_reordered_inter.json.gz", "--models", _COUNTED.replace("content,", "")),
    "diginetica": (*_DIGINETICA, "--models", _OF_SESSIONS),
    "diginetica_neural": (*_DIGINETICA, "--models", "transformer,session-kNN,hybrid"),
    "diginetica_recurrent": (*_DIGINETICA, "--models", "recurrent"),
    "ml-1m": ("sets", "ml-1m/train.txt.gz", "ml-1m/test.txt.gz"),
    "electronics": ("sets", "electronics/train.txt.gz", "electronics/test.txt.gz"),
    "groceries": ("baskets", "groceries/groceries.csv.gz"),
}
SETS: Final = {
    "Amazon Beauty": ("beauty", "beauty_neural"),
    "Amazon Beauty, reordered": ("beauty_reordered",),
    "Diginetica": ("diginetica", "diginetica_neural", "diginetica_recurrent"),
    "MovieLens 1M": ("ml-1m",),
    "Amazon Electronics": ("electronics",),
    "Groceries": ("groceries",),
}
"""Runs of each data set, whose rows make one table."""
SHOWN: Final = {
    "loo": ("R@10", "N@10", "R@20", "N@20"),
    "sessions": ("R@20", "M@20", "N@20"),
    "sets": ("R@20", "N@20", "F1@20"),
    "baskets": ("R@10", "N@10", "M@10"),
}


def main(
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(RUNS)}; may be repeated.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between.")] = "0,1",
    tables: Annotated[bool, typer.Option("--tables", help="Measure nothing.")] = False,
) -> None:
    """Run every protocol, or those named, and print the tables."""
    for name in () if tables else only or RUNS:
        _measure(name, seeds)
    for title, runs in SETS.items():
        kept = [RESULTS / f"{name}.json" for name in runs if name in (only or RUNS)]
        if answers := [json.loads(path.read_text()) for path in kept if path.exists()]:
            print(_table(title, answers))


def _measure(name: str, seeds: str) -> None:
    folder = os.environ.get("SHOPKEEPER_REFERENCE")
    if not folder:
        raise typer.BadParameter("set SHOPKEEPER_REFERENCE to the folder that holds `data/`")
    protocol, *files = RUNS[name]
    paths = [str(Path(folder, "data", file)) if "/" in file else file for file in files]
    start = time.perf_counter()
    command = [sys.executable, "-m", "trainers", "evaluate", protocol, *paths, "--seeds", seeds, "--json"]
    answer = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    facts = {"command": f"shopkeeper evaluate {protocol} {' '.join(files)} --seeds {seeds}", "machine": machine()}
    facts["date"] = dt.datetime.now(dt.UTC).date().isoformat()
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = {**answer, **facts, "wall_seconds": round(time.perf_counter() - start, 1)}
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


def _table(title: str, answers: Sequence[dict[str, Any]]) -> str:
    """Return commands and rows of all runs on one data set."""
    first, *rest = SHOWN[answers[0]["protocol"]]
    shown = (first, *rest, "coverage@20", "novelty@20", "popularity_bias@20")
    commands = [
        f"{run}. `{answer['command']}`: {answer['questions']:,} questions, {answer['wall_seconds'] / 60:.0f} min, "
        f"{answer['date']}"
        for run, answer in enumerate(answers, 1)
    ]
    head = ("model", "run", first, "±", *shown[1:], "fit s", "peak MiB")
    rows = [line for run, answer in enumerate(answers, 1) for line in _rows(run, answer, shown)]
    return "\n".join((f"\n### {title}\n", *commands, "", _line(head), "|---" * len(head) + "|", *rows))


def _rows(run: int, answer: Mapping[str, Any], shown: Sequence[str]) -> Iterator[str]:
    """Yield one line a model: means over seeds, the first with its sampling error; bold is best on validation."""
    models = list(dict.fromkeys(row["model"] for row in answer["rows"]))
    for model in models:
        rows = [row for row in answer["rows"] if row["model"] == model]
        first, *rest = (mean(row["metrics"][metric] for row in rows) for metric in shown)
        error = f"{sampling_error(first, answer['questions']):.4f}"
        cost = f"{mean(row['fit_seconds'] for row in rows):.1f}", f"{max(row['peak_mib'] for row in rows):.0f}"
        mark = f"**{model}**" if model == answer["chosen"] and len(models) > 1 else model
        yield _line((mark, str(run), f"{first:.4f}", error, *(f"{value:.4f}" for value in rest), *cost))


def sampling_error(recall: float, questions: int) -> float:
    """Return half the 95 % interval of a recall: binomial, exact for one target a question, else the most it can be."""
    return 1.96 * math.sqrt(recall * (1 - recall) / questions)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    typer.run(main)
