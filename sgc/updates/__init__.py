"""What g returns and how it reaches the weights. One form of update, one file."""

from sgc.updates.base import Update
from sgc.updates.dense import Dense, Lazy
from sgc.updates.low_rank import LowRank
from sgc.updates.nothing import Nothing
from sgc.updates.sparse import Sparse

__all__ = ["Dense", "Lazy", "LowRank", "Nothing", "Sparse", "Update"]
