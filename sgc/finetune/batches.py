"""Tokens once, batches padded to their longest text, and an order that any step can look up."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sgc.finetune.data import Examples
from sgc.finetune.randomness import derived_seed
from sgc.finetune.readers import DataError

__all__ = [
    "Batch",
    "Order",
    "Tokens",
    "by_length",
    "collate",
    "passes",
    "share_at_limit",
    "tokenise",
]

_WINDOW = 8  # batches whose rows are sorted by length before they are cut, if asked for


@dataclass(frozen=True)
class Batch:
    """``ids``, ``mask`` and of text pairs ``types``: ``(batch, tokens)``; ``labels``: ``(batch,)``.

    All are int64; a token's type is 0 in the first text, 1 in the second. Of a multiple choice,
    ``(batch·answers, tokens)``: the answers to a question lie one after the other.
    """

    ids: Tensor
    mask: Tensor
    labels: Tensor
    types: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same batch on ``device``."""
        types = None if self.types is None else self.types.to(device)
        return Batch(self.ids.to(device), self.mask.to(device), self.labels.to(device), types)


@dataclass(frozen=True)
class Tokens:
    """Token ids of every text, its label, the id that pads, and of text pairs the tokens' types.

    Beyond 1, ``choices`` texts after one another have one label between them: the right one's
    place.
    """

    ids: tuple[tuple[int, ...], ...]
    labels: tuple[int, ...]
    pad: int
    types: tuple[tuple[int, ...], ...] | None = None
    choices: int = 1

    def __len__(self) -> int:
        return len(self.labels)

    def places(self, row: int) -> range:
        """Where the texts of an example are."""
        return range(row * self.choices, (row + 1) * self.choices)

    def length(self, row: int) -> int:
        """Tokens of the longest text of an example."""
        return max(len(self.ids[place]) for place in self.places(row))


def tokenise(tokenizer: Any, examples: Examples, *, max_length: int) -> Tokens:
    """Token ids of ``examples``, cut to ``max_length``; of a pair, the second text is cut.

    A tokenizer that puts no special token between the texts of a pair gets a line break there. A
    multiple choice becomes a pair of question and answer for each answer.

    Raises:
        DataError: the first text of a pair leaves no room for the second.
    """
    if examples.answers is not None:
        count = len(examples.answers[0])
        asked = [text for text in examples.texts for _ in range(count)]
        answers = [answer for row in examples.answers for answer in row]
        pairs = _pairs(tokenizer, asked, answers, max_length=max_length, tell=True)
        return replace(pairs, labels=examples.labels, choices=count)
    if examples.seconds is None:
        encoded = tokenizer(list(examples.texts), truncation=True, max_length=max_length)
        ids = tuple(map(tuple, encoded["input_ids"]))
        return Tokens(ids, examples.labels, tokenizer.pad_token_id)
    pairs = _pairs(tokenizer, list(examples.texts), list(examples.seconds), max_length=max_length)
    return replace(pairs, labels=examples.labels)


def _pairs(
    tokenizer: Any,
    firsts: list[str],
    seconds: list[str],
    *,
    max_length: int,
    tell: bool = False,
) -> Tokens:
    """Without labels. ``tell`` finds the types also where the tokenizer gives none."""
    special = tokenizer.num_special_tokens_to_add(pair=True)
    alone = tokenizer(firsts, add_special_tokens=False)["input_ids"]
    longest = max(map(len, alone)) + special
    if longest >= max_length:
        raise DataError(
            f"--max-length {max_length} leaves no room for the second text of a pair: the longest "
            f"first one takes {longest} tokens"
        )
    if special == tokenizer.num_special_tokens_to_add(pair=False):
        seconds = [f"\n{text}" for text in seconds]
    encoded = tokenizer(firsts, seconds, truncation="only_second", max_length=max_length)
    types = encoded.get("token_type_ids")
    if types is None and tell and getattr(tokenizer, "is_fast", False):
        types = [[of or 0 for of in encoded.sequence_ids(text)] for text in range(len(firsts))]
    return Tokens(
        tuple(map(tuple, encoded["input_ids"])),
        (),
        tokenizer.pad_token_id,
        None if types is None else tuple(map(tuple, types)),
    )


def share_at_limit(tokens: Tokens, max_length: int) -> float:
    """Share of the texts that are as long as they may be: most of them were cut."""
    return sum(len(ids) >= max_length for ids in tokens.ids) / len(tokens.ids)


def collate(tokens: Tokens, rows: Sequence[int]) -> Batch:
    """The batch of ``rows``, padded on the right to its longest text."""
    places = [place for row in rows for place in tokens.places(row)]
    texts = [tokens.ids[place] for place in places]
    lengths = torch.tensor([len(text) for text in texts])
    width = max(map(len, texts))
    mask = (torch.arange(width) < lengths[:, None]).long()
    types = None
    if tokens.types is not None:
        types = _padded([tokens.types[place] for place in places], width, 0)
    labels = torch.tensor([tokens.labels[row] for row in rows])
    return Batch(_padded(texts, width, tokens.pad), mask, labels, types)


def _padded(texts: Sequence[Sequence[int]], width: int, pad: int) -> Tensor:
    return torch.tensor([[*text, *[pad] * (width - len(text))] for text in texts])


class Order:
    """Rows of every training step: each epoch a new permutation, its ragged end left out.

    A step's rows depend on ``seed`` and ``step`` alone, so that a resumed run needs no saved state.

    Args:
        tokens: the training examples.
        batch_size: rows a step; all of them where there are fewer.
        seed: the run's seed.
        group_by_length: within a window of a few batches, texts of like length share a batch. On
            the default data that saves 40 % of the padded tokens, but batches are then no longer
            independent draws, which costs a little accuracy.
    """

    def __init__(
        self, tokens: Tokens, *, batch_size: int, seed: int, group_by_length: bool = False
    ) -> None:
        self.lengths = torch.tensor(list(map(tokens.length, range(len(tokens)))))
        self.batch_size = min(batch_size, len(tokens))
        self.batches = len(tokens) // self.batch_size
        self.seed = seed
        self.window = _WINDOW if group_by_length else 1
        self._epoch = -1
        self._plan: list[list[int]] = []

    def rows(self, step: int) -> list[int]:
        """Rows of training step ``step``, counted from 0."""
        epoch, place = divmod(step, self.batches)
        if epoch != self._epoch:
            self._epoch, self._plan = epoch, self._draw(epoch)
        return self._plan[place]

    def _draw(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
        rows = torch.randperm(len(self.lengths), generator=generator)
        rows = rows[: self.batches * self.batch_size]
        windows = rows.split(self.window * self.batch_size)
        sorted_rows = torch.cat([w[self.lengths[w].argsort(stable=True)] for w in windows])
        plan = sorted_rows.view(self.batches, self.batch_size)
        return plan[torch.randperm(self.batches, generator=generator)].tolist()


def passes(tokens: Tokens, rows: Sequence[int], *, size: int | None) -> list[list[int]]:
    """``rows`` in parts of at most ``size``, long texts with long ones; as they are if they fit."""
    if size is None or len(rows) <= size:
        return [list(rows)]
    ranked = sorted(rows, key=tokens.length)
    return [ranked[start : start + size] for start in range(0, len(ranked), size)]


def by_length(tokens: Tokens, *, batch_size: int) -> Iterator[Batch]:
    """Every row once, long texts with long ones: the least padding for evaluation."""
    order = sorted(range(len(tokens)), key=tokens.length)
    for start in range(0, len(order), batch_size):
        yield collate(tokens, order[start : start + batch_size])
