"""Run the public protocols of `shopkeeper evaluate`, keep their results, and print them as the tables of README.md.

Reads the data sets from the folder that SHOPKEEPER_REFERENCE names; `--tables` only prints what was kept.
"""

import json
import os
import subprocess
import sys
import time
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
    for name in only or RUNS:
        if (RESULTS / f"{name}.json").exists():
            print(_table(name, json.loads((RESULTS / f"{name}.json").read_text())))


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
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = {**answer, **facts, "wall_seconds": round(time.perf_counter() - start, 1)}
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


def _table(name: str, answer: dict[str, Any]) -> str:
    shown = (*SHOWN[answer["protocol"]], "coverage@20", "novelty@20", "popularity_bias@20")
    lines = [
        f"\n`{answer['command']}`: {answer['questions']:,} questions, {answer['wall_seconds'] / 60:.0f} min\n",
        f"| {name} | {' | '.join(shown)} | fit s | peak MiB |",
        f"|---{'|---' * (len(shown) + 2)}|",
    ]
    for model in dict.fromkeys(row["model"] for row in answer["rows"]):
        rows = [row for row in answer["rows"] if row["model"] == model]
        measures = [f"{mean(row['metrics'][metric] for row in rows):.4f}" for metric in shown]
        cost = f"{mean(row['fit_seconds'] for row in rows):.1f}", f"{max(row['peak_mib'] for row in rows):.0f}"
        mark = f"**{model}**" if model == answer["chosen"] else model
        lines.append(f"| {' | '.join((mark, *measures, *cost))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
