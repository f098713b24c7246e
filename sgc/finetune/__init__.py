"""The main job: fine-tune a pre-trained transformer with a method chosen by name.

The files, in the order in which a run (``job``) meets them: ``config``, ``defaults``, ``methods``,
``task`` (``embedded``, ``readers``, ``data``, ``batches``), ``model`` (``targets``,
``mean_pooling``), ``optimizer``, all put together by ``prepare``; ``train`` (``forward``,
``checkpoint``, ``randomness``), ``evaluate``, then ``summary``, ``table`` and ``plot``.
"""

from sgc.finetune.config import FinetuneConfig
from sgc.finetune.defaults import Method, resolve_method
from sgc.finetune.job import run

__all__ = ["FinetuneConfig", "Method", "resolve_method", "run"]
