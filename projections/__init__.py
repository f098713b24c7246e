"""Measurement operators ``A ∈ R^{k×d}``: the matrix that turns a sparse gradient into k numbers.

One operator, one file. They share the small protocol of :mod:`projections.base` and import nothing
else of this project. Create them by name: ``sgc.create("projection", "srht", k, d, seed=0)``.
"""

from projections.base import DenseOperator, Projection, as_projection

__all__ = ["DenseOperator", "Projection", "as_projection"]
