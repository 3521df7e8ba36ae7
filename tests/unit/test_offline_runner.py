"""Measures by hand, search and weights by validation only, and what the command prints."""

import json
import math
import sys
import types

import numpy as np
import pytest
from typer.testing import CliRunner

from server.cli.main import app as shopkeeper
from trainers.__main__ import app
from trainers.blend import Blend
from trainers.offline import commands, protocols, report, runner
from trainers.offline.baselines import HistoryPopular, MostPopular
from trainers.offline.cost import counted
from trainers.offline.measures import Answers, accuracy, answers, measured
from trainers.offline.recipes import HYBRID, Recipe, picked, recipes_of
from trainers.offline.tuning import search
from trainers.offline.weights import best_weights
from trainers.recommender import Recommender
from trainers.sequence.settings import Training


def ring(tmp_path, visitors=60, items=12):
    """Return a file in which every visitor walks along a ring of items."""
    lines = (f"u{n:02} " + " ".join(f"i{(n + step) % items:02}" for step in range(6)) for n in range(visitors))
    path = tmp_path / "ring.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def split(tmp_path):
    return protocols.leave_one_out(ring(tmp_path))


class Constant(Recommender):
    """Scores every item by a number given beforehand."""

    def __init__(self, *, values=()):
        self.values = values

    def fit(self, dataset, progress=None):  # noqa: ARG002
        self.fitted_ = dataset
        return self

    def score(self, queries):
        return np.tile(np.array(self.values, np.float32), (len(queries), 1))


class Oracle(Constant):
    """Scores the next item of the ring, of `values` times the way of `away` steps."""

    def __init__(self, *, away=1):
        self.away = away

    def score(self, queries):
        newest = queries.item[queries.offsets[1:] - 1].astype(np.int64)
        scores = np.zeros((len(queries), queries.n_items), np.float32)
        scores[np.arange(len(queries)), (newest + self.away) % queries.n_items] = 1
        return scores


def test_measures_of_a_case_worked_out_by_hand(split):
    questions = split.test.take(np.arange(2))
    questions = type(questions)(questions.queries, np.array([0, 2, 3]), np.array([0, 1, 2], np.uint32))
    lists = np.array([[0, 1], [0, 2]], np.uint32)
    found = measured(Answers(np.array([1.0, 15.0, np.inf]), lists), questions, np.array([8.0, 4.0, 4.0, 0.0]))
    gain, ideal = 1 / math.log2(3), 1 + 1 / math.log2(3)
    assert found["R@10"] == pytest.approx(1 / 4)
    assert found["R@20"] == pytest.approx(1 / 2)
    assert found["N@10"] == pytest.approx(gain / ideal / 2)
    assert found["M@20"] == pytest.approx(1 / 4)
    assert found["F1@20"] == pytest.approx(2 * 2 / 22 / 2)
    assert found["coverage@20"] == 3 / 4
    assert found["novelty@20"] == pytest.approx((1 + 2 + 1 + 2) / 4)
    assert found["popularity_bias@20"] == pytest.approx(6 / (16 / 3))


def test_seen_items_rank_only_where_the_protocol_says_so(split):
    model = HistoryPopular().fit(split.train)
    shown = answers(model, split.test, filter_seen=False).lists
    unseen = answers(model, split.test, filter_seen=True).lists
    own = set(split.test.queries.batch(0, 1).item.tolist())
    assert own == set(shown[0, : len(own)].tolist())
    assert own == set(unseen[0, -len(own) :].tolist())


def test_accuracy_agrees_with_all_measures(split):
    model = MostPopular().fit(split.train)
    full = measured(answers(model, split.test, filter_seen=True), split.test, np.ones(split.train.n_items))
    assert {name: full[name] for name in accuracy(model, split.test, filter_seen=True)} == accuracy(
        model, split.test, filter_seen=True
    )


def test_the_search_takes_what_validation_likes_and_refits_only_what_fit_reads(split):
    made = []

    def make(**settings):
        made.append(settings)
        return Oracle(**settings)

    recipe = Recipe("model", make, {"away": 3}, {"away": (2, 1, 5)}, frozenset({"away"}))
    found = search(recipe, split, 0, lambda _: None)
    assert found.settings == {"away": 1}
    assert found.goal == 1.0
    assert len(made) == 1
    search(Recipe("model", make, {"away": 3}, {"away": (2, 1, 5)}), split, 0, lambda _: None)
    assert len(made) == 5
    assert search(recipe, split, 0, lambda _: None, tuned=False).settings == {"away": 3}


def test_weights_favour_the_member_that_validation_favours(split):
    values = tuple(np.linspace(0.9, 1.0, split.train.n_items))
    members = [Constant(values=values).fit(split.train), Oracle().fit(split.train)]
    weights = best_weights([members], split, split.folds)
    assert all(weight >= 0 for weight in weights)
    assert sum(weights[2:]) > sum(weights[:2])
    blend = Blend(weights=weights).adopt(members)
    assert accuracy(blend, split.test, filter_seen=True)["R@10"] == 1.0


def test_a_blend_needs_weights_for_every_member(split):
    members = [MostPopular().fit(split.train)]
    with pytest.raises(ValueError, match="1 members need 2 weights; 3 are given"):
        Blend(weights=(1.0, 1.0, 1.0)).adopt(members)


def test_the_test_has_no_say_in_what_is_chosen(split):
    recipes = {
        "right": Recipe("model", Oracle),
        "wrong": Recipe("model", Oracle, {"away": 4}),
        HYBRID: Recipe(HYBRID, Blend),
    }
    outcome = runner.run(split, recipes, [0, 1], lambda *_: None)
    assert [(row.model, row.seed) for row in outcome.rows] == [
        (name, seed) for seed in (0, 1) for name in ("right", "wrong", "hybrid")
    ]
    assert outcome.chosen == "right"
    assert outcome.rows[2].metrics["R@10"] == 1.0
    swapped = runner.Evaluation(split, [row for row in outcome.rows if row.model != "hybrid"])
    swapped.rows[0].metrics["N@10"] = 0.0
    assert swapped.chosen == "right"


def test_a_blend_is_judged_by_questions_that_did_not_choose_its_weights(split, monkeypatch):
    asked = []

    def weights(members, _, folds):
        asked.append({int(target) for fold in folds for target in fold.questions.queries.visitor})
        return (1.0,) * (2 * len(members[0]))

    monkeypatch.setattr(runner, "best_weights", weights)
    recipes = {"right": Recipe("model", Oracle), HYBRID: Recipe(HYBRID, Blend)}
    assert runner.run(split, recipes, [0], lambda *_: None).rows[-1].validation == 1.0
    whole, *halves = asked
    assert halves[0] | halves[1] == whole
    assert not halves[0] & halves[1]


def test_a_model_in_which_the_seed_shows_is_fitted_for_each(split):
    short = {"training": Training(epochs=1, window=8, negatives=8)}
    for name, recipe in recipes_of(split.protocol).items():
        if recipe.kind != HYBRID and not recipe.random(split):
            settings = recipe.settings | (short if "training" in recipe.settings else {})
            fits = [recipe.model(settings, seed).fit(split.train) for seed in (0, 1)]
            asked = [answers(one, split.test, filter_seen=split.filter_seen).ranks for one in fits]
            assert np.array_equal(*asked), name


def test_costs_are_counted():
    with counted() as before:
        pass
    with counted() as cost:
        block = np.ones(32_000_000)
    assert cost.seconds > 0
    assert cost.peak_mib - before.peak_mib > 0.8 * block.nbytes / 2**20


def test_picked_names_what_there_is():
    recipes = recipes_of("loo")
    assert list(picked(recipes, [])) == list(recipes)
    assert list(picked(recipes, ["sequential-rules", "popular"])) == ["popular", "sequential-rules"]
    assert list(picked(recipes, ["sequential-rules", HYBRID])) == ["sequential-rules", HYBRID]
    assert list(picked(recipes, [HYBRID])) == list(recipes)
    with pytest.raises(ValueError, match="there is no model `bert`; give one or more of random, popular"):
        picked(recipes, ["bert"])


def test_the_command_prints_one_object(tmp_path):
    arguments = [
        "evaluate",
        "loo",
        str(ring(tmp_path)),
        "--models",
        "popular,sequential-rules,hybrid",
        "--seeds",
        "0,1",
        "--json",
    ]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    answer = json.loads(ran.stdout)
    assert (answer["protocol"], answer["data"], answer["chosen"]) == ("loo", "ring.txt", "sequential-rules")
    assert {row["kind"] for row in answer["rows"]} == {"baseline", "model", "hybrid"}
    assert {row["seed"] for row in answer["rows"]} == {0, 1}
    for row in answer["rows"]:
        assert {"R@10", "N@10", "M@20", "novelty@20", "coverage@20", "popularity_bias@20"} <= set(row["metrics"])
        assert row["fit_seconds"] >= 0
        assert row["peak_mib"] > 0
    found = {row["model"]: row["metrics"]["N@10"] for row in answer["rows"]}
    assert found["sequential-rules"] == 1.0
    assert found["popular"] < 0.7


def test_baskets_of_visitors_are_asked_of_the_models_that_serve_them(tmp_path):
    path = tmp_path / "baskets.txt"
    path.write_text("".join(f"u{n} i{n} i9\nu{n} i{n}\nu{n} i{n} i8\nu{n} i{n} i9\n" for n in range(8)), "utf-8")
    ran = CliRunner().invoke(
        app, ["evaluate", "baskets", str(path), "--models", "TIFU-KNN,user-to-user,hybrid", "--json"]
    )
    assert ran.exit_code == 0, ran.output
    found = {row["model"]: row["metrics"]["R@10"] for row in json.loads(ran.stdout)["rows"]}
    assert set(found) == {"TIFU-KNN", "user-to-user", "hybrid"}
    assert found["TIFU-KNN"] == 1.0
    nobody = tmp_path / "nobody.csv"
    nobody.write_text("".join(f"a{n % 3},b{n % 5},c\n" for n in range(40)), "utf-8")
    ran = CliRunner().invoke(app, ["evaluate", "baskets", str(nobody), "--models", "TIFU-KNN", "--json"])
    assert "there is no model `TIFU-KNN` here, it is for `baskets` of visitors; give one or more" in ran.stdout


def refused(*options):
    ran = CliRunner().invoke(app, ["evaluate", "loo", *options, "--json"])
    return ran.exit_code, json.loads(ran.stdout)["error"]


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--models", "bert", "there is no model `bert`"),
        ("--models", "content", "it needs --attributes"),
        ("--seeds", "a", "whole numbers from 0 on"),
        ("--seeds", "0,0", "different whole numbers"),
        ("--seeds", "-1", "from 0 on"),
        ("--seeds", "99999999999999999999", "from 0 on"),
        ("--plot", "/nowhere/at/all.png", "in a folder that is there"),
        ("--plot", "a.jpg", "ends in .png"),
    ],
)
def test_an_option_that_cannot_be_is_a_wrong_use_and_told_before_any_work(tmp_path, monkeypatch, option, value, why):
    monkeypatch.setattr(runner, "_fit", lambda *_, **__: pytest.fail("it began"))
    status, error = refused(str(ring(tmp_path)), option, value)
    assert (status, why in error) == (2, True), error


def test_attributes_of_none_of_the_items_are_refused_and_those_of_some_counted(tmp_path):
    path = tmp_path / "attributes.json"
    path.write_text('{"other": ["red"]}', "utf-8")
    status, error = refused(str(ring(tmp_path)), "--attributes", str(path))
    assert (status, "tell of none of the 12 items" in error) == (2, True), error
    path.write_text('{"other": ["red"], "i00": ["red"]}', "utf-8")
    ran = CliRunner().invoke(app, ["evaluate", "loo", str(ring(tmp_path)), "--models", "popular", "--attributes", path])
    assert "attributes of 1 of 12 items" in ran.stderr


def test_without_torch_the_hybrid_does_without_and_who_asks_for_it_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "has_torch", lambda: False)
    few = {name: recipe for name, recipe in recipes_of("loo").items() if name in {"popular", "transformer", HYBRID}}
    monkeypatch.setattr(commands, "recipes_of", lambda *_, **__: few)
    ran = CliRunner().invoke(app, ["evaluate", "loo", str(ring(tmp_path)), "--models", "hybrid", "--json"])
    assert [row["model"] for row in json.loads(ran.stdout)["rows"]] == ["popular", "hybrid"]
    assert "left out" in ran.stderr
    status, error = refused(str(ring(tmp_path)), "--models", "transformer")
    assert (status, "needs PyTorch" in error) == (1, True)


def test_popularity_bias_is_not_told_where_training_has_no_target(tmp_path):
    path = tmp_path / "one.txt"
    path.write_text("u1 a b c d e\n", "utf-8")
    ran = CliRunner().invoke(app, ["evaluate", "loo", str(path), "--models", "popular", "--json"])
    (row,) = json.loads(ran.stdout)["rows"]
    assert ("popularity_bias@20" in row["metrics"], row["metrics"]["coverage@20"]) == (False, 1.0)
    ran = CliRunner().invoke(app, ["evaluate", "loo", str(path), "--models", "popular"])
    assert ran.exit_code == 0, ran.output


def test_the_table_is_for_people(tmp_path):
    ran = CliRunner().invoke(
        app, ["evaluate", "loo", str(ring(tmp_path)), "--models", "popular,sequential-rules", "--no-tuning"]
    )
    assert "sequential-rules*" in ran.stdout
    assert "best on validation" in ran.stdout


def test_the_command_line_shows_a_table_of_a_small_shop(tmp_path):
    ran = CliRunner().invoke(shopkeeper, ["evaluate", "loo", str(ring(tmp_path)), "--models", "popular"])
    assert ran.exit_code == 0, ran.output
    assert "popularity bias@20" in ran.stdout
    ran = CliRunner().invoke(shopkeeper, ["evaluate", "loo", str(ring(tmp_path)), "--models", "popular", "--json"])
    assert json.loads(ran.stdout)["chosen"] == "popular"


def test_the_command_line_takes_options_and_columns_from_the_trainers(tmp_path, capfd):
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    train.write_text("".join(f"{n} {n + 1} {n + 2}\n" for n in range(20)), encoding="utf-8")
    test.write_text("1 2\t3\n", encoding="utf-8")
    options = ["--models", "popular", "--no-tuning", "--seeds", "0,1"]
    shown = CliRunner().invoke(shopkeeper, ["evaluate", "sessions", *options, str(train), str(test)])
    assert shown.exit_code == 0, shown.output
    places = [shown.stdout.index(name) for name in ("R@20", "M@20", "N@20", "R@10", "M@10", "coverage@20")]
    assert places == sorted(places)
    capfd.readouterr()
    assert CliRunner().invoke(shopkeeper, ["evaluate", "sessions", "--help"]).exit_code == 0
    said = capfd.readouterr().out
    assert all(option in said for option in ("--models", "--attributes", "--mlflow", "--tuning"))


@pytest.mark.parametrize("program", [app, shopkeeper])
def test_faults_end_with_a_text_and_a_status(tmp_path, program, capfd):
    bad = tmp_path / "bad.txt"
    bad.write_text("u1 a\nu2\n", encoding="utf-8")
    ran = CliRunner().invoke(program, ["evaluate", "loo", str(bad), "--json"])
    assert ran.exit_code == 1
    assert "line 2: has only `u2`; write the visitor" in ran.stdout
    ran = CliRunner().invoke(program, ["evaluate", "loo", str(ring(tmp_path)), "--seeds", "one", "--json"])
    assert ran.exit_code == 2
    assert "write different whole numbers from 0 on, with commas between" in ran.stdout
    capfd.readouterr()


def test_what_is_not_installed_is_named_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="--plot needs matplotlib; install it with"):
        report.check_options(tmp_path / "plot.png", "")
    with pytest.raises(ValueError, match="--mlflow needs MLflow; install it with"):
        report.check_options(None, "file:runs")


def test_rows_go_to_mlflow_where_it_is_asked_for(split, monkeypatch):
    logged = []
    fake = types.ModuleType("mlflow")
    for name in ("set_tracking_uri", "set_experiment", "set_tags", "log_params", "log_metrics"):
        setattr(fake, name, lambda value, name=name: logged.append((name, value)))
    fake.start_run = lambda run_name: counted()  # noqa: ARG005
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    outcome = runner.run(split, {"right": Recipe("model", Oracle, {"away": 1})}, [3], lambda *_: None)
    report.track(outcome, "file:runs")
    assert ("set_tracking_uri", "file:runs") in logged
    assert ("log_params", {"seed": 3, "away": 1}) in logged
    assert dict(logged)["log_metrics"]["N_at_10"] == 1.0


def test_the_plot_is_a_picture(split, tmp_path):
    outcome = runner.run(split, {"right": Recipe("model", Oracle)}, [0], lambda *_: None)
    report.plot(outcome, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
