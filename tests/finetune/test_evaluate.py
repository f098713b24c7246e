"""Accuracy and loss against scikit-learn's."""

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from sgc.finetune.batches import Tokens
from sgc.finetune.evaluate import score


class Table(torch.nn.Module):
    """Logits of a text are those of its first token."""

    def __init__(self, logits):
        super().__init__()
        self.found = torch.nn.Embedding.from_pretrained(logits)

    def forward(self, input_ids, attention_mask):
        return type("Output", (), {"logits": self.found(input_ids[:, 0])})


@pytest.mark.parametrize("count", [1, 64, 200])
def test_score_is_that_of_scikit_learn(count):
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, 3, generator=draw)
    labels = torch.randint(3, (count,), generator=draw).tolist()
    lengths = torch.randint(1, 9, (count,), generator=draw).tolist()
    texts = tuple((i, *[0] * length) for i, length in enumerate(lengths))
    found = score(Table(logits), Tokens(texts, tuple(labels), 0), device="cpu")
    right = logits.double()
    assert found.accuracy == accuracy_score(labels, right.argmax(-1))
    assert found.loss == pytest.approx(
        log_loss(labels, torch.softmax(right, -1).numpy(), labels=[0, 1, 2]), rel=1e-6
    )
