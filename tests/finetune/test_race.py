"""Races at equal bytes: sizes, rates, who may enter, and what is written."""

import dataclasses
import json
import re

import pytest
from rich.console import Console
from typer.testing import CliRunner

import sgc
from sgc.cli import app
from sgc.finetune import resolve_method
from sgc.finetune.config import ConfigError, FinetuneConfig
from sgc.finetune.entrants import _model as model_of
from sgc.finetune.entrants import largest
from sgc.finetune.pareto import frontier
from sgc.finetune.race import Race, race
from sgc.finetune.race_report import Entry, RaceReport
from sgc.finetune.readers import DataError
from sgc.finetune.tuning import GRID, best_rate, next_rates
from sgc.results import ResultStore

# The sketch is as small as can be: it need not recover anything.
pytestmark = pytest.mark.filterwarnings("ignore:the 4 rows of a 'srht' A")

METHODS = {
    "galore": "galore",
    "sketch": "mesgc:sparsity=1,chunks=1,kappa=4,projection=srht,recovery=omp",
    "sign": "sign-sgd",
}


@pytest.fixture(scope="module")
def plan(tiny_model, tiny_csv):
    """Three methods and AdamW, two budgets."""
    config = FinetuneConfig(
        method="adamw",
        lr=1e-3,
        model=str(tiny_model),
        data=str(tiny_csv),
        group_column="film",
        steps=3,
        batch_size=4,
    )
    return Race(config=config, budgets=(300, 900), methods=METHODS, grid=(1e-3, 1e-2), seeds=2)


@pytest.fixture(scope="module")
def raced(plan, tmp_path_factory):
    """The report of the race, and its folder."""
    folder = tmp_path_factory.mktemp("race")
    return race(plan, folder=folder, console=quiet()), folder


def quiet():
    return Console(quiet=True)


def test_a_race_from_sizes_to_report(plan, raced):
    report, _ = raced
    assert {e.label for e in report.at(900)} == {"galore", "sketch", "sign", "adamw"}
    # Rank 1 of two 32×32 matrices: 2·(3·32·4 + 8) bytes are more than 300.
    assert "784 bytes" in report.refused["galore"][300]
    for e in report.entries:
        assert all(e.bytes <= budget for budget in e.budgets)
        assert len(e.accuracies) == len(e.losses) == 2
        assert all(loss > 0 for loss in e.losses)
        assert e.lr in e.tried
        assert e.tried[e.lr] == max(a for a in e.tried.values() if a is not None)
        assert set(e.tried) <= set(plan.grid)
        assert e.ms_per_step > 0
    sign = next(e for e in report.entries if e.label == "sign")
    assert sign.budgets == (300, 900)  # one entrant for both: it has no size
    assert next(e for e in report.entries if e.label == "adamw").budgets == ()


def test_measured_bytes_are_within_the_budget_they_were_planned_for(raced):
    results = ResultStore(raced[1] / "results.jsonl").load()
    held = {
        r.config["method"]: r.metrics["state_bytes"] + r.metrics["shared_bytes"] for r in results
    }
    assert max(v for m, v in held.items() if m != "adamw") <= 900


def test_rates_are_chosen_where_the_test_part_is_not_looked_at(raced):
    report, folder = raced
    results = ResultStore(folder / "results.jsonl").load()
    tuned = [r for r in results if r.config["evaluate"] == "validation"]
    final = [r for r in results if r.config["evaluate"] == "test"]
    assert {r.metrics["test_accuracy"] for r in tuned} == {None}
    assert not {r.seed for r in tuned} & {r.seed for r in final}
    assert len(final) == 2 * len(report.entries)
    assert len(tuned) == sum(len(e.tried) for e in report.entries)


def test_a_second_race_runs_nothing_again_and_says_the_same(plan, raced):
    first, folder = raced
    lines = (folder / "results.jsonl").read_text()
    again = race(plan, folder=folder, console=quiet())
    assert (folder / "results.jsonl").read_text() == lines
    assert again.entries == first.entries


def test_a_report_is_read_back_as_it_was_written(raced, tmp_path):
    report, _ = raced
    report.save(tmp_path / "race.json")
    assert RaceReport.load(tmp_path / "race.json") == dataclasses.replace(
        report, config=dict(report.config)
    )


def test_every_run_has_a_seed_of_its_own(plan, tmp_path):
    config = plan.config.replace(seed=5, steps=1)
    one = dataclasses.replace(
        plan, config=config, methods={"sign": "sign-sgd"}, references={}, tuning_seeds=2
    )
    race(dataclasses.replace(one, grid=(1e-3,)), folder=tmp_path, console=quiet())
    runs = [
        (r.config["evaluate"], r.seed)
        for r in ResultStore(tmp_path / "results.jsonl").load()
        if r.kind == "finetune"
    ]
    assert sorted(runs) == [("test", 5), ("test", 6), ("validation", 1000), ("validation", 1001)]
    with pytest.raises(ConfigError, match="seeds 999 to 1000 meet.* 1000 to 1001"):
        dataclasses.replace(one, config=config.replace(seed=999))


def test_the_rate_of_the_lowest_loss_is_chosen_if_asked_for(plan, raced):
    report = race(
        dataclasses.replace(plan, choose_by="loss"), folder=raced[1], console=quiet()
    )  # with the same runs, but for rates that loss alone walks to
    tried = {
        (r.config["method"], r.config["lr"]): r.metrics["validation_loss"]
        for r in ResultStore(raced[1] / "results.jsonl").load()
        if r.config["evaluate"] == "validation"
    }
    assert report.choose_by == "loss"
    for e in report.entries:
        assert e.tried == {rate: tried[e.spec, rate] for rate in e.tried}
        assert e.tried[e.lr] == min(e.tried.values())


def test_runs_without_a_loss_do_not_count_as_diverged(plan, raced, tmp_path):
    lines = (raced[1] / "results.jsonl").read_text("utf-8")
    older = lines.replace('"validation_loss"', '"other"')
    (tmp_path / "results.jsonl").write_text(older, "utf-8")
    with pytest.raises(ConfigError, match="no validation_loss.*--choose-by accuracy"):
        race(dataclasses.replace(plan, choose_by="loss"), folder=tmp_path, console=quiet())


def test_two_jobs_find_what_one_does(plan, tmp_path):
    small = dataclasses.replace(plan, methods={"sign": "sign-sgd"}, references={}, seeds=1)
    one = race(small, folder=tmp_path / "one", console=quiet())
    two = race(small, folder=tmp_path / "two", console=quiet(), jobs=2)
    found = [[(e.lr, e.tried, e.accuracies) for e in r.entries] for r in (one, two)]
    assert found[0] == found[1]
    timings = [
        r
        for r in ResultStore(tmp_path / "two" / "results.jsonl").load()
        if r.kind == "finetune-timing"
    ]
    assert len(timings) == 1


def test_a_method_without_a_size_may_not_exceed_the_budget(plan, tmp_path):
    """BitFit trains the biases of the body: 2·(numbers)·4 bytes and counters, more than 300."""
    some = dataclasses.replace(plan, methods={"bitfit": "bitfit", "sign": "sign-sgd"}, seeds=1)
    report = race(
        dataclasses.replace(some, budgets=(300,), references={}, grid=(1e-3,)),
        folder=tmp_path,
        console=quiet(),
    )
    assert [e.label for e in report.entries] == ["sign"]
    assert "no size to choose" in report.refused["bitfit"][300]


def test_nobody_fits(plan, tmp_path):
    alone = dataclasses.replace(plan, methods={"galore": "galore"}, budgets=(10,), references={})
    with pytest.raises(sgc.BudgetError, match="no method fits"):
        race(alone, folder=tmp_path, console=quiet())


def test_the_command_writes_report_and_picture(plan, tmp_path):
    c = plan.config
    done = CliRunner().invoke(
        app,
        [
            *("compare", "galore", "sign-sgd", "--model", c.model, "--data", c.data),
            *("--group-column", "film", "--steps", "2", "--batch-size", "4", "--seeds", "1"),
            *("--budget", "0.9k", "--grid", "1e-3", "--out", str(tmp_path)),
        ],
    )
    assert done.exit_code == 0, done.output
    assert "at most 900 bytes" in done.output
    assert (tmp_path / "race.png").stat().st_size > 10_000
    again = CliRunner().invoke(
        app, ["races", str(tmp_path / "race.json"), "--plot", str(tmp_path / "again.png")]
    )
    assert again.exit_code == 0, again.output
    assert "at most 900 bytes" in again.output
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "race.png").read_bytes()
    values = json.loads((tmp_path / "race.json").read_text("utf-8"))
    assert values["budgets"] == [900]
    assert values["environment"]["packages"]["torch"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--budget", "many", "number of bytes"),
        ("--budget", "0", "number of bytes"),
        ("--budget", "inf", "number of bytes"),
        ("--grid", "nan", "rising"),
        ("--grid", "1,inf", "rising"),
        ("--report", "/proc/race.json", "No such file|denied|cannot|not permitted"),
        ("--grid", "1e-2,1e-3", "rising"),
        ("--grid", "a", "rising"),
        ("--choose-by", "luck", "accuracy or loss"),
        ("--leave-out", "galor", "did you mean 'galore'"),
    ],
)
def test_bad_options_are_refused(option, value, message):
    arguments = {"--budget": "900", "--grid": "1e-3", option: value}
    flat = [part for pair in arguments.items() for part in pair]
    done = CliRunner().invoke(app, ["compare", "galore", *flat])
    assert done.exit_code != 0
    assert re.search(message, done.output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "2"], "--jobs means something with --budget only"),
        (["--choose-by", "loss"], "--choose-by means something with --budget only"),
        (["--leave-out", "galore"], "--leave-out means something with --budget only"),
        (
            ["--budget", "1k", "--beside", __file__],
            "--beside means something without --budget only",
        ),
        (["--budget", "1k", "--leave-out", "galore"], "leaves nobody"),
    ],
)
def test_options_that_would_be_ignored_are_refused(arguments, message):
    done = CliRunner().invoke(app, ["compare", "galore", *arguments])
    assert done.exit_code != 0
    assert message in " ".join(done.output.split())


def test_the_walk_stops_at_a_peak_and_at_the_ends():
    curve = {rate: -abs(i - 9) for i, rate in enumerate(GRID)}  # the best is GRID[9]
    tried: dict[float, float | None] = {}
    while new := next_rates(tried, GRID, start=GRID[4]):
        tried.update({rate: curve[rate] for rate in new})
    assert best_rate(tried) == GRID[9]
    assert sorted(tried) == list(GRID[3:11])
    rising = {rate: float(i) for i, rate in enumerate(GRID)}
    tried = {rate: rising[rate] for rate in GRID[-2:]}
    assert next_rates(tried, GRID, start=1.0) == []


def test_patience_walks_out_of_a_hollow():
    """At high rates nothing is learnt: scores there differ by noise alone."""
    curve = dict.fromkeys(GRID, 0.60) | {3e-4: 0.7, 1e-3: 0.65, 3e-3: 0.61, 1e-2: 0.605, 3e-2: 0.62}
    found = {}
    for patience in (1, 2, 3):
        tried: dict[float, float | None] = {}
        while new := next_rates(tried, GRID, start=3e-2, patience=patience):
            assert not set(new) & set(tried)
            tried.update({rate: curve[rate] for rate in new})
        found[patience] = best_rate(tried)
        place = GRID.index(found[patience])
        assert set(GRID[place - patience : place + patience + 1]) <= set(tried)
    assert found == {1: 3e-2, 2: 3e-2, 3: 3e-4}


def test_nobody_walks_beyond_a_failure():
    grid = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    tried: dict[float, float | None] = {1e-3: 0.7, 3e-4: None, 3e-3: 0.6}
    assert next_rates(tried, grid, start=1e-3, patience=2) == [1e-2]


def test_runs_that_diverge_are_never_chosen():
    assert best_rate({1e-3: None, 1e-2: 0.1}) == 1e-2
    assert best_rate({1e-3: 0.5, 1e-2: 0.5, 1e-1: 0.1}) == 1e-3  # of equal ones the smallest
    assert next_rates({1e-3: None, 1e-2: 0.1, 1e-1: 0.0}, (1e-3, 1e-2, 1e-1), start=1.0) == []


def entry(bytes_, *accuracies):
    return Entry(
        label="x",
        spec="x",
        budgets=(1,),
        lr=1.0,
        tried={},
        accuracies=accuracies,
        test_examples=100,
        states=0,
        states_full=1,
        state_bytes=bytes_,
        shared_bytes=0,
        extra_weight_bytes=0,
        ms_per_step=None,
    )


def test_entries_count_and_the_frontier_is_what_nobody_beats():
    a, b, c, d = entry(0, 0.5), entry(10, 0.4), entry(20, 0.7, 0.9), entry(30, None)
    assert frontier([d, c, b, a]) == [a, c]
    assert c.accuracy == pytest.approx(0.8)
    assert c.error == pytest.approx(0.1)
    assert a.error == pytest.approx(0.05)
    assert (d.accuracy, d.diverged) == (None, 1)
    assert entry(1, 0.5, None).accuracy is None


def test_what_is_no_report_is_refused_in_a_sentence(raced, tmp_path):
    runs = raced[1] / "results.jsonl"
    done = CliRunner().invoke(app, ["races", str(runs)])
    assert done.exit_code == 2
    assert "is no report of a race" in done.output


WHOLE = {
    "config": {"model": "m", "data": "d", "steps": 2, "batch_size": 4},
    "budgets": [100],
    "grid": [1.0],
    "seeds": 1,
    "tuning_seeds": 1,
    "entries": [],
    "refused": {"x": {"100": "too large"}},
}
AN_ENTRY = json.loads(json.dumps(dataclasses.asdict(entry(10, 0.5))))


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([], "list"),
        ({}, "no 'entries'"),
        ({"entries": [{}], "refused": {}}, "no 'tried'"),
        ({**WHOLE, "entries": [{}]}, "no 'tried'"),
        ({**WHOLE, "entries": [{"tried": {}}]}, "label"),
        ({**WHOLE, "entries": ["x"]}, "str"),
        ({**WHOLE, "entries": [{**AN_ENTRY, "tried": {"fast": 1}}]}, "fast"),
        ({**WHOLE, "refused": []}, "items"),
        ({**WHOLE, "refused": {"x": {"many": ""}}}, "many"),
        ({key: value for key, value in WHOLE.items() if key != "budgets"}, "budgets"),
        ({**WHOLE, "budgets": 100}, "not iterable"),
        ({**WHOLE, "config": {}}, "no 'model'"),
        ({**WHOLE, "config": []}, "list"),
        ({**WHOLE, "config": {**WHOLE["config"], "data": None}}, "None"),
        ({**WHOLE, "config": {"model": "m", "data": "d", "steps": 2}}, "no 'batch_size'"),
    ],
)
def test_what_is_nearly_a_report_is_refused_in_a_sentence(values, what, tmp_path):
    path = tmp_path / "race.json"
    path.write_text(json.dumps(values), "utf-8")
    with pytest.raises(DataError, match=rf"race\.json is no report of a race: .*{what}"):
        RaceReport.load(path)
    done = CliRunner().invoke(app, ["races", str(path)])
    assert done.exit_code == 2
    assert "is no report of a race" in done.output


def test_fields_of_a_later_version_are_left_out(tmp_path):
    later = {**WHOLE, "colour": 1, "entries": [{**AN_ENTRY, "weather": "fine"}]}
    (tmp_path / "race.json").write_text(json.dumps(later), "utf-8")
    report = RaceReport.load(tmp_path / "race.json")
    assert report.entries == (entry(10, 0.5),)
    assert report.refused == {"x": {100: "too large"}}
    assert report.environment == {}


def test_an_entrant_is_as_large_as_a_plan(plan):
    """One search: of a recipe that adds weights, and of a compressor."""
    for budget in (900, 2000):
        found = largest("galore:lr=1e-2", plan.config, budget)
        model, targets = model_of(plan.config)
        planned = sgc.plan(targets.values(), budget_bytes=budget, method="galore")
        assert (found.options["rank"], found.lr) == (planned.options["rank"], 1e-2)
    lora = largest("lora", plan.config, 6500)
    held = [
        resolve_method(f"lora:rank={lora.options['rank'] + more}").recipe().cost(model, targets)
        for more in (0, 1)
    ]
    assert held[0].bytes <= 6500 < held[1].bytes
    with pytest.raises(sgc.BudgetError, match=r"smallest lora:rank=1 takes [0-9,]+ .* is 100"):
        largest("lora", plan.config, 100)
