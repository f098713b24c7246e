"""Sentence classifier on the mean of the last hidden states; copied into saved models as it is."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


class MeanPoolingClassifier(PreTrainedModel):
    """Any encoder of ``AutoModel``, the mean over its unpadded tokens, and one linear layer.

    The parameter names are those of the stock classifiers (``bert.…``, ``classifier.…``), so the
    encoder loads with ``AutoModel`` again. The encoder's own pooler is left out: nothing reads it.
    """

    _supports_sdpa = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        encoder = AutoModel.from_config(config)
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None
        self.base_model_prefix = encoder.base_model_prefix
        setattr(self, self.base_model_prefix, encoder)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """``(batch, tokens)`` ids, mask and text of a pair → logits ``(batch, classes)``."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        hidden = self.base_model(**inputs)[0]
        weight = attention_mask.to(hidden.dtype).unsqueeze(-1)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
        return SequenceClassifierOutput(logits=self.classifier(mean))
