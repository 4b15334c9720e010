"""Answers of a language model that runs here, out of a Hugging Face folder, and what its route leaves of them.

Everything is asked of the model once with the most that a door shows; a route shows fewer tokens and alternatives.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import msgspec

from palladion.gate.chat.terms import terms
from palladion.model.model import Model
from palladion.policy import RoutePolicy
from palladion.redteam.distilling import ANSWER_TOKENS, Place, TextAnswer
from palladion.redteam.text_students import read_folder, require_torch

CONFIG, CONFIG_BYTES_MAX = "config.json", 1024 * 1024
BATCH = 16
ALTERNATIVES = 20  # of the undefended door: what OpenAI's own API shows at most
PROMPT_TOKENS_MAX = 512
UNDEFENDED, DEPLOYED = "undefended", "deployed"
_STEPS: tuple[tuple[str, Literal["contract", "reduced", "label"]], ...] = (
    (DEPLOYED, "contract"),
    ("throttled", "reduced"),
    ("degraded", "label"),
)


class FolderText:
    """The model: greedy or drawn answers, up to `ANSWER_TOKENS`, with the likeliest tokens at each place."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        """Raises MissingExtraError, and FormatError where the folder holds no language model."""
        self._model, self._tokenizer = read_folder(folder)
        self._model.eval()
        self._seed = seed
        self._kept: dict[tuple[str, float, int], TextAnswer] = {}

    def answers(self, prompts: Sequence[str], *, temperature: float, again: int) -> Iterator[TextAnswer]:
        """Answers in order; the same question gets the same answer, once it was given."""
        for start in range(0, len(prompts), BATCH):
            some = prompts[start : start + BATCH]
            missing = [prompt for prompt in dict.fromkeys(some) if (prompt, temperature, again) not in self._kept]
            for prompt, said in zip(missing, self._said(missing, temperature, again), strict=True):
                self._kept[prompt, temperature, again] = said
            yield from (self._kept[prompt, temperature, again] for prompt in some)

    def _said(self, prompts: Sequence[str], temperature: float, again: int) -> list[TextAnswer]:
        if not prompts:
            return []
        torch = require_torch()
        rows = [self._tokens(prompt) for prompt in prompts]
        longest = max(map(len, rows))
        end = int(self._tokenizer.eos_token_id)
        # padding stands before, unseen
        numbers = torch.tensor([[end] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        text = "\0".join([str(self._seed), str(temperature), str(again), *prompts])
        torch.manual_seed(int.from_bytes(sha256(text.encode()).digest()[:7], "big"))
        how: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        with torch.inference_mode():
            made = self._model.generate(
                numbers,
                attention_mask=mask,
                max_new_tokens=ANSWER_TOKENS,
                pad_token_id=end,
                return_dict_in_generate=True,
                output_logits=True,
                **(how if temperature > 0 else {"do_sample": False}),
            )
        logprobs = torch.log_softmax(torch.stack(made.logits, dim=1).float(), dim=-1)
        best, tokens = logprobs.topk(min(ALTERNATIVES, logprobs.shape[-1]), dim=-1)
        return [
            self._answer(row, *likeliest)
            for row, *likeliest in zip(
                made.sequences[:, longest:].tolist(), tokens.tolist(), best.tolist(), strict=True
            )
        ]

    def _answer(self, row: list[int], tokens: list[list[int]], logprobs: list[list[float]]) -> TextAnswer:
        end = int(self._tokenizer.eos_token_id)
        length = row.index(end) if end in row else len(row)
        places = [
            Place(
                "" if at == length else self._tokenizer.decode([row[at]]),
                tuple(
                    (None if token == end else self._tokenizer.decode([token]), value)
                    for token, value in zip(tokens[at], logprobs[at], strict=True)
                ),
            )
            for at in range(min(length + 1, len(row)))
        ]
        return TextAnswer(self._tokenizer.decode(row[:length], skip_special_tokens=True), tuple(places))

    def _tokens(self, prompt: str) -> list[int]:
        """Token numbers of a request with that prompt, as the folder's template has it."""
        if self._tokenizer.chat_template is None:
            found = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        else:
            asked = [{"role": "user", "content": prompt}]
            text = self._tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
            found = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return list(found[-PROMPT_TOKENS_MAX:]) or [int(self._tokenizer.eos_token_id)]


class ShownText:
    """What a door shows of a model's answers: so many tokens of each, and alternatives to a token (0: none)."""

    def __init__(self, model: FolderText, *, alternatives: int, tokens: int, decimals: int | None = None) -> None:
        self.alternatives, self.tokens = alternatives, tokens
        self._model, self._decimals = model, decimals

    def answers(self, prompts: Sequence[str], *, temperature: float | None, again: int) -> Iterator[TextAnswer]:
        """Answers in order."""
        own = 1.0 if temperature is None else temperature
        for answer in self._model.answers(prompts, temperature=own, again=again):
            yield self._shown(answer)

    def _shown(self, answer: TextAnswer) -> TextAnswer:
        said = answer.text
        if len(answer.places) > self.tokens:
            said = "".join(place.token for place in answer.places[: self.tokens])
        places = answer.places[: self.tokens] if self.alternatives else ()
        return TextAnswer(said, tuple(Place(item.token, self._likeliest(item)) for item in places))

    def _likeliest(self, place: Place) -> tuple[tuple[str | None, float], ...]:
        shown = place.likeliest[: self.alternatives]
        return tuple((text, value if self._decimals is None else round(value, self._decimals)) for text, value in shown)


def doors_of(model: FolderText, route: RoutePolicy) -> dict[str, ShownText]:
    """The model undefended, and behind each step of disclosure of its route; steps that show the same are one door."""
    whole = ShownText(model, alternatives=ALTERNATIVES, tokens=ANSWER_TOKENS)
    found, seen = {UNDEFENDED: whole}, {(ALTERNATIVES, ANSWER_TOKENS)}
    for name, level in _STEPS:
        given = terms(route, level)
        shown = (given.alternatives or 0, min(ANSWER_TOKENS, given.tokens_max))
        # the door of trusted clients is judged by the policy's bars, whatever it shows
        if shown not in seen or name == DEPLOYED:
            seen.add(shown)
            found[name] = ShownText(model, alternatives=shown[0], tokens=shown[1], decimals=given.decimals)
    return found


def words_of(doors: Mapping[str, ShownText]) -> dict[str, str]:
    """What each door gives, in words."""
    return {
        name: f"up to {door.tokens} tokens, log probabilities of {door.alternatives or 'no'} alternatives"
        for name, door in doors.items()
    }


def is_text_folder(model: Model) -> bool:
    """Whether a model is a Hugging Face folder with a causal language model, by what its config.json says."""
    found = next((file for file in model.files if file.name == CONFIG and file.byte_count <= CONFIG_BYTES_MAX), None)
    if found is None or model.format != "folder":
        return False
    try:
        config = msgspec.json.decode(b"".join(bytes(piece) for piece in found.pieces()))
    except (msgspec.DecodeError, RecursionError):
        return False
    named = config.get("architectures") if isinstance(config, dict) else None
    return isinstance(named, list) and any(isinstance(name, str) and name.endswith("ForCausalLM") for name in named)
