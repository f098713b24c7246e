"""Which implementation ``auto`` takes; no GPU is needed to see it choose."""

import torch

import sgc
from recovery import auto
from recovery.omp import OMP
from sgc.problems import sparse_problem


class Recording(OMP):
    """Stands for omp-cupy."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def prepare(self, dictionary):
        self.calls.append("prepare")
        return "prepared"

    def solve_checked(self, dictionary, extra, y, companion, **options):
        self.calls.append(extra)
        return super().solve_checked(dictionary, None, y, companion, **options)


def solve(monkeypatch, dtype, *, kernels):
    monkeypatch.setattr(auto, "has_kernels", lambda device: kernels)
    solver, stand_in = sgc.create("recovery", "auto"), Recording()
    solver._kernels = stand_in
    problem = sparse_problem(d=60, k=30, sparsity=2, signals=5, seed=0, dtype=dtype)
    for _ in range(2):
        result = solver.solve(problem.A, problem.y, sparsity=2)
    plain = sgc.create("recovery", "omp").solve(problem.A, problem.y, sparsity=2)
    assert torch.equal(result.support, plain.support)
    assert torch.equal(result.values, plain.values)
    return stand_in.calls


def test_kernels_prepare_once_and_solve_where_they_run(monkeypatch):
    assert solve(monkeypatch, torch.float32, kernels=True) == ["prepare", "prepared", "prepared"]


def test_float64_and_machines_without_kernels_are_left_to_torch(monkeypatch):
    assert solve(monkeypatch, torch.float64, kernels=True) == []
    assert solve(monkeypatch, torch.float32, kernels=False) == []
