"""Every registered solver against an oracle and against the contract: ``sgc validate``.

:mod:`~sgc.validate.agreement` compares answers with scikit-learn's, :mod:`~sgc.validate.stress`
tries what goes wrong elsewhere, and :func:`run` puts the two together and judges.
"""

from sgc.validate.report import Report, run

__all__ = ["Report", "run"]
