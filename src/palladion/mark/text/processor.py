"""Puts the mark of `palladion.mark.text.gumbel` into what Hugging Face Transformers generates: a `LogitsProcessor`.

It draws the token itself, temperature and cut-offs included, and leaves the sampler nothing to choose.
"""

from typing import TYPE_CHECKING

import numpy as np

from palladion.errors import MissingExtraError
from palladion.mark.text.gumbel import WINDOW, Chance

if TYPE_CHECKING:
    import torch


class TextMarker:
    """Pass it as `logits_processor=[marker]` to `generate(do_sample=True)`; one for each call, because it remembers.

    Where a context comes back within a text, the sampler is left to draw: the same chance twice would make the model
    repeat itself. Beam search and greedy decoding are not marked; temperature, top_k and top_p are to be given here.
    """

    def __init__(
        self, chance: Chance, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, window: int = WINDOW
    ) -> None:
        """`top_k` 0 and `top_p` 1 cut nothing off.

        Raises ValueError on settings under which nothing is drawn by chance, MissingExtraError without torch.
        """
        if not temperature > 0 or top_k == 1 or not 0 < top_p <= 1:
            raise ValueError(
                "a token that is not drawn by chance cannot be marked: temperature > 0, top_k != 1, top_p > 0"
            )
        try:
            import torch
        except ImportError:
            raise MissingExtraError("marking text needs torch", "pip install 'palladion[torch]'") from None
        self._torch = torch
        self._chance, self._window = chance, window
        self._temperature, self._top_k, self._top_p = temperature, top_k, top_p
        self._seen: list[set[tuple[int, ...]]] = []
        self._prompt = 0

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        """Scores (rows, vocabulary) in which the drawn token alone is possible; `input_ids` (rows, tokens so far)."""
        rows, length = input_ids.shape
        if len(self._seen) != rows:
            self._seen, self._prompt = [set() for _ in range(rows)], length
        scores = self._cut(scores / self._temperature)
        if length - self._prompt < self._window:
            return scores  # a context that reaches into the prompt is unknown to whoever tests the text
        tokens = np.arange(scores.shape[1])
        for row, context in enumerate(map(tuple, input_ids[:, -self._window :].tolist())):
            if context in self._seen[row]:
                continue
            self._seen[row].add(context)
            # half a step up: 0 would be infinitely unlikely
            uniform = self._chance.uniforms(context, tokens) + 2.0**-33
            noise = self._torch.from_numpy(-np.log(-np.log(uniform))).to(scores.device)
            drawn = (scores[row].double() + noise).argmax()
            scores[row] = -self._torch.inf
            scores[row, drawn] = 0.0
        return scores

    def _cut(self, scores: "torch.Tensor") -> "torch.Tensor":
        if 0 < self._top_k < scores.shape[1]:
            least = scores.topk(self._top_k, dim=1).values[:, -1:]
            scores = scores.masked_fill(scores < least, -self._torch.inf)
        if self._top_p < 1:
            ordered, places = scores.sort(dim=1, descending=True)
            probabilities = ordered.softmax(dim=1)
            # a token stays if those before it do not reach top_p yet, so that one always stays
            beyond = probabilities.cumsum(dim=1) - probabilities >= self._top_p
            scores = scores.masked_fill(beyond.scatter(1, places, beyond), -self._torch.inf)
        return scores
