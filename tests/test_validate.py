import dataclasses
import json

import pytest
import torch
from typer.testing import CliRunner

import sgc
from recovery.omp import OMP
from recovery.omp_inverse_cholesky import InverseCholeskyOMP
from recovery.result import Status
from sgc.cli import app
from sgc.problems import sparse_problem
from sgc.validate import run
from sgc.validate.agreement import Agreement, Case, Size, measure
from sgc.validate.oracle import ask_oracle
from sgc.validate.report import judge
from sgc.validate.stress import breach
from tests.conftest import compressing

SMALL = (Size(96, 64, 3),)


class Honest(OMP):
    oracle = "omp"


class WrongAtom(Honest):
    """Names the neighbour of one atom in one signal: a single wrong support."""

    def solve(self, A, y, *, sparsity):
        result = super().solve(A, y, sparsity=sparsity)
        support = result.support.clone()
        if support.shape[0] > 5:
            support[5, 0] = (support[5, 0] + 1) % A.shape[1]
        return dataclasses.replace(result, support=support)


class WrongValues(Honest):
    def solve(self, A, y, *, sparsity):
        result = super().solve(A, y, sparsity=sparsity)
        return dataclasses.replace(result, values=result.values * (1 + 1e-3))


class NotANumber(Honest):
    """What peers do: one zero row, and everything is NaN."""

    def solve(self, A, y, *, sparsity):
        result = super().solve(A, y, sparsity=sparsity)
        bad = (y == 0).all(-1).any()
        return dataclasses.replace(result, values=result.values.masked_fill(bad, torch.nan))


class AbsoluteTest(Honest):
    """Small signals are taken for zero."""

    def solve(self, A, y, *, sparsity):
        return super().solve(A, torch.where(y.abs() < 1e-5, 0, y), sparsity=sparsity)


class SaysConverged(OMP):
    """No OMP variant, and its statuses lie."""

    def recover(self, *args, **options):
        found = super().recover(*args, **options)
        found.values = found.values * 0.5
        found.status = torch.full_like(found.status, int(Status.CONVERGED))
        return found


class Raises(OMP):
    def solve(self, A, y, *, sparsity):
        raise RuntimeError("no such luck")


@pytest.fixture
def registered(request):
    name = f"test-{request.param.__name__.lower()}"
    sgc.register("recovery", name, request.param)
    yield name
    sgc.unregister("recovery", name)


@pytest.mark.parametrize("registered", [Honest], indirect=True)
@pytest.mark.parametrize("projection", compressing())
def test_a_good_solver_passes(registered, projection):
    report = run([registered], sizes=SMALL, signals=12, projection=projection)
    assert report.passed, report.failures
    assert len(report.agreements) == 2 * 3
    assert all(row.inside > 6 for row in report.agreements), "a regime without signals says nothing"
    assert all(row.exact == row.oracle_exact for row in report.agreements)


@pytest.mark.parametrize(
    ("registered", "said"),
    [
        (WrongAtom, "another support than the oracle's on 1 of 12"),
        (WrongValues, "coefficients off by 1.0e-03"),
        (NotANumber, "zero row (torch.float64): values are not finite"),
        (AbsoluteTest, "y·1e-6"),
        (SaysConverged, "residual_norm is not the norm"),
        (Raises, "raised RuntimeError: no such luck"),
    ],
    indirect=["registered"],
)
def test_a_broken_solver_fails(registered, said):
    report = run([registered], sizes=SMALL, signals=12, laws=["gaussian"])
    assert not report.passed
    assert any(said in failure for failure in report.failures), report.failures


@pytest.mark.parametrize("registered", [WrongAtom], indirect=True)
def test_the_command_exits_with_1_and_writes_its_line(registered, tmp_path):
    out = tmp_path / "validate.jsonl"
    options = ["--quick", "--signals", "6", "--out", str(out)]
    done = CliRunner().invoke(app, ["validate", "--solver", registered, *options])
    assert done.exit_code == 1, done.output
    assert "failed" in done.output
    (line,) = out.read_text().splitlines()
    written = json.loads(line)
    assert written["kind"] == "validate"
    assert written["metrics"]["passed"] is False
    assert written["metrics"]["failures"]
    assert "packages" in written["environment"]


@pytest.mark.parametrize("registered", [Honest], indirect=True)
def test_the_command_exits_with_0_when_all_is_well(registered):
    options = ["--solver", registered, "--solver", "cosamp:max_iterations=9", "--signals", "4"]
    done = CliRunner().invoke(app, ["validate", "--quick", *options], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "passed" in done.output
    assert "cosamp:max_iterations=9" in done.output


def test_the_command_names_mistakes():
    done = CliRunner().invoke(app, ["validate", "--solver", "opm"])
    assert done.exit_code == 2
    assert "did you mean 'omp'?" in done.output
    done = CliRunner().invoke(app, ["validate", "--projection", "identity", "--quick"])
    assert done.exit_code == 2
    assert "k = d" in done.output


def test_what_cannot_run_here_is_listed_and_fails_nothing():
    def missing(**_options):
        raise sgc.MissingDependencyError("pip install something")

    sgc.register("recovery", "test-missing", missing)
    try:
        report = run(["test-missing"], sizes=SMALL, signals=2)
    finally:
        sgc.unregister("recovery", "test-missing")
    assert "pip install something" in report.unavailable["test-missing"]
    assert report.passed


def test_the_omp_solvers_are_held_against_the_oracle():
    # Without this declaration the verdict would be empty.
    assert OMP.oracle == "omp"
    assert InverseCholeskyOMP.oracle == "omp"


def test_a_verdict_without_any_claimant_is_a_failure(monkeypatch):
    monkeypatch.setattr("sgc.validate.report.reproduces_omp", lambda _solver: False)
    monkeypatch.setattr("sgc.validate.report.available", lambda _kind: ["cosamp"])
    report = run(sizes=SMALL, signals=2, laws=["signs"])
    assert "no registered solver declares" in report.failures[-1]


def test_the_oracle_scales_back():
    problem = sparse_problem(60, 30, 3, signals=5)
    lengths = torch.linspace(1, 100, 60, dtype=torch.float64)

    class Scaled:
        shape = (30, 60)

        def to_dense(self):
            return problem.A.to_dense() * lengths

    answer = ask_oracle(Scaled(), 1e-6 * problem.y, sparsity=3)
    truth = problem.values.gather(1, problem.support.argsort(1))
    assert torch.equal(answer.support.sort(1).values, problem.support.sort(1).values)
    mine = (answer.values * 1e6 * lengths[answer.support]).gather(1, answer.support.argsort(1))
    torch.testing.assert_close(mine, truth, rtol=1e-10, atol=1e-10)


def test_the_oracle_marks_what_it_did_not_use():
    problem = sparse_problem(60, 30, 3, signals=5)
    answer = ask_oracle(problem.A, problem.y, sparsity=6)
    assert ((answer.support >= 0).sum(1) <= 6).all()
    assert (answer.values[answer.support < 0] == 0).all()


def test_signals_outside_the_exact_regime_are_not_owed():
    # Far too few measurements: the oracle itself is lost.
    case = Case.draw(Size(200, 12, 6), "signs", signals=10, projection="gaussian", seed=0)
    row = measure("x", OMP(), case, dtype=torch.float32, repeats=1)
    assert row.oracle_exact < 0.2
    assert row.inside <= 2
    assert judge(dataclasses.replace(row, agree=0.0, agree_inside=None, error_inside=None)) == []


def test_a_coefficient_that_drowns_in_float32_is_owed_in_float64_only(monkeypatch):
    monkeypatch.setitem(
        sgc.problems.LAWS, "faint", lambda _random, signals, s: [[1.0] * (s - 1) + [1e-7]] * signals
    )
    case = Case.draw(SMALL[0], "faint", signals=4, projection="gaussian", seed=0)
    assert case.inside[torch.float64].all()
    assert not case.inside[torch.float32].any()


def test_a_nan_coefficient_is_a_failure():
    row = Agreement(
        *("omp", SMALL[0], "signs", "float32"),
        agree=1.0,
        agree_inside=1.0,
        inside=3,
        error=float("nan"),
        error_inside=float("nan"),
        exact=1.0,
        oracle_exact=1.0,
        microseconds=1.0,
    )
    assert len(judge(row)) == 1


def test_breach_finds_what_is_wrong_by_itself():
    problem, solver = sparse_problem(60, 30, 3, signals=5), OMP()
    result = solver.solve(problem.A, problem.y, sparsity=3)

    def said(**changes):
        broken = dataclasses.replace(result, **changes)
        return breach(solver, broken, problem.A, problem.y, sparsity=3)

    assert said() is None
    twice, status = result.support.clone(), result.status.clone()
    twice[2, 1] = twice[2, 0]
    status[1] = Status.ZERO_SIGNAL
    assert said(support=twice) == "an atom is used twice"
    assert "wrong shape" in said(support=result.support[:, :2])
    assert "leaves [-1, 60)" in said(support=result.support + 60)
    assert "ZERO_SIGNAL" in said(status=status)
    assert "NON_FINITE" in said(status=torch.full_like(status, int(Status.NON_FINITE)))
    assert "residual_norm" in said(residual_norm=result.residual_norm + 1)
    assert "not finite" in said(values=result.values / 0)
    marked = result.support.clone()
    marked[0, 0] = -1
    assert said(support=marked) == "an unused slot holds a value"
