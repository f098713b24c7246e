"""The whole gradient, scaled as the update scales what it covers."""

from sgc.residuals.fira import Fira


class Apollo(Fira):
    """``φ·G`` with ``φ_j = ‖N_j‖/‖R_j‖``: the update only says how large (Zhu et al. 2024).

    As :class:`~sgc.residuals.fira.Fira`, but N itself is dropped: the auxiliary subspace decides
    the step size of a channel (with ``per="tensor"``, of the parameter), the gradient its
    direction.
    """

    whole = everywhere = True
