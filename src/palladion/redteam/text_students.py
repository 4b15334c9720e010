"""Students of a language model's answers: a small GPT of bytes trained here, or a model in a folder trained on.

Needs the torch extra. What a thief asks, and what he is compared with, is in `distilling`. A student is judged on
answers that it is shown byte by byte: where it would say each of them itself, its greedy answer is that answer.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError, MissingExtraError

if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

Numbers = NDArray[np.float64]

# of a lesson's prompt its end, where the question mostly stands; longer ones cost time and tell a small student little
PROMPT_BYTES, ANSWER_BYTES = 96, 128
BEGIN, ANSWER, END, PAD = 256, 257, 258, 259  # after the 256 bytes
TOKENS = 260
WIDTH, LAYERS, HEADS = 64, 2, 4
BATCH = 16
PROMPT_WEIGHT = 0.2  # of a byte of the prompt in the loss: reading teaches writing, as long as there is little of it
RATE, WARM_SHARE, DECAY, CLIP = 3e-3, 0.1, 0.01, 1.0
FOLDER_RATE = 1e-4  # of a model that knows a language already
FOLDER_TOKENS = 384  # of a lesson in its own tokens
UNSEEN = -100  # label of what is not judged, as torch's cross entropy has it


@dataclass(frozen=True)
class Lesson:
    """A prompt and what is to be answered. `soft` are the next byte's probabilities by place in the answer's bytes."""

    prompt: str
    answer: str
    soft: tuple[tuple[int, tuple[tuple[int, float], ...]], ...] = ()


@dataclass(frozen=True, eq=False)
class Marks:
    """How a student does on answers (n,): bits that it takes to write each, its bytes, tokens said rightly, and tokens.

    The end of an answer is one of its tokens. `exact` is 1 for an answer that the student would give itself, word for
    word, and 0 for others.
    """

    bits: Numbers
    bytes: Numbers
    agreed: Numbers
    tokens: Numbers
    exact: Numbers


class TextStudent(Protocol):
    """A student as it begins."""

    @property
    def soft(self) -> bool:
        """Whether it can learn probabilities of bytes."""
        ...

    def learn(self, lessons: Sequence[Lesson], steps: int, seed: int) -> "LearntStudent":
        """A student that was shown the lessons. Deterministic per seed."""
        ...

    def untouched(self, seed: int) -> "LearntStudent":
        """The student before any lesson."""
        ...


class LearntStudent(Protocol):
    """A student that was taught."""

    def marks(self, lessons: Sequence[Lesson]) -> Marks:
        """How it does on answers that it was not shown."""
        ...


def require_torch() -> Any:
    """The library. Raises MissingExtraError."""
    try:
        return import_module("torch")
    except ModuleNotFoundError:
        raise MissingExtraError(
            "a student of texts needs torch, which is not installed", "pip install 'palladion[torch]'"
        ) from None


class ByteStudent:
    """A GPT of bytes with random weights: it knows no language, so that all it can say it was taught."""

    soft = True

    def learn(self, lessons: Sequence[Lesson], steps: int, seed: int) -> "LearntBytes":
        """A student that was shown the lessons."""
        if not lessons:
            raise ValueError("a student needs a lesson")
        with _one_thread():
            return self._learnt(lessons, steps, seed)

    def untouched(self, seed: int) -> "LearntBytes":
        """The student before any lesson."""
        return LearntBytes(_network(seed))

    @staticmethod
    def _learnt(lessons: Sequence[Lesson], steps: int, seed: int) -> "LearntBytes":
        torch = require_torch()
        network = _network(seed)
        generator = np.random.default_rng((seed, 41))
        rows = [_row(lesson) for lesson in lessons]
        optimizer = torch.optim.AdamW(network.parameters(), RATE, betas=(0.9, 0.98), weight_decay=DECAY)
        network.train()
        for step, chosen in enumerate(_batches(len(rows), steps, generator)):
            for group in optimizer.param_groups:
                group["lr"] = RATE * _pace(step, steps)
            loss = _loss(network, [rows[place] for place in chosen], [lessons[place] for place in chosen])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
        return LearntBytes(network)


@dataclass(frozen=True, eq=False)
class LearntBytes:
    """A GPT of bytes that was taught."""

    network: Any

    def marks(self, lessons: Sequence[Lesson]) -> Marks:
        """How it does on answers that it was not shown."""
        with _one_thread():
            return self._judged(lessons)

    def _judged(self, lessons: Sequence[Lesson]) -> Marks:
        torch = require_torch()
        found = []
        self.network.eval()
        for start in range(0, len(lessons), BATCH):
            rows = [_row(lesson) for lesson in lessons[start : start + BATCH]]
            inputs, targets, of_answer = _tensors(rows)
            with torch.inference_mode():
                said = torch.log_softmax(self.network(inputs).float(), dim=-1)
            bits = -said.gather(2, targets[..., None])[..., 0] / math.log(2)
            right = said.argmax(-1) == targets
            sizes = of_answer.sum(1)
            # the end is a token and no byte
            found.append(torch.stack([(bits * of_answer).sum(1), sizes - 1, (right & of_answer).sum(1), sizes]))
        bits, sizes, agreed, tokens = torch.cat(found, dim=1).double().numpy()
        return _marked(bits, sizes, agreed, tokens)


class FolderStudent:
    """A causal language model in a Hugging Face folder, in safetensors, that goes on learning. No code of it runs."""

    soft = False

    def __init__(self, folder: Path) -> None:
        """Raises MissingExtraError, and FormatError where the folder holds no such model."""
        self._folder = folder
        self._tokenizer = read_folder(folder)[1]

    def learn(self, lessons: Sequence[Lesson], steps: int, seed: int) -> "LearntFolder":
        """A student that was shown the lessons."""
        torch = require_torch()
        if not lessons:
            raise ValueError("a student needs a lesson")
        learnt = self.untouched(seed)
        rows = [learnt.row(lesson) for lesson in lessons]
        optimizer = torch.optim.AdamW(learnt.model.parameters(), FOLDER_RATE, weight_decay=DECAY)
        learnt.model.train()
        for step, chosen in enumerate(_batches(len(rows), steps, np.random.default_rng((seed, 42)))):
            for group in optimizer.param_groups:
                group["lr"] = FOLDER_RATE * _pace(step, steps)
            inputs, labels = learnt.tensors([rows[place] for place in chosen])
            said = learnt.model(input_ids=inputs).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(
                said.flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=UNSEEN
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learnt.model.parameters(), CLIP)
            optimizer.step()
        return learnt

    def untouched(self, seed: int) -> "LearntFolder":
        """The student before any lesson."""
        require_torch().manual_seed(seed)
        return LearntFolder(read_folder(self._folder)[0], self._tokenizer)


@dataclass(frozen=True, eq=False)
class LearntFolder:
    """A model of a folder that was taught."""

    model: Any
    tokenizer: Any

    def row(self, lesson: Lesson) -> tuple[list[int], list[int]]:
        """Token numbers of prompt and answer; of a prompt that is too long, the end."""
        answer = [*self.tokenizer(lesson.answer, add_special_tokens=False)["input_ids"], self._end][
            : FOLDER_TOKENS // 2
        ]
        prompt = self.tokenizer(f"{lesson.prompt}\n", add_special_tokens=False)["input_ids"]
        return prompt[-(FOLDER_TOKENS - len(answer)) :] or [self._end], answer

    def tensors(self, rows: Sequence[tuple[list[int], list[int]]]) -> "tuple[Tensor, Tensor]":
        """Inputs and labels (n, longest); what is not an answer has no label. Padding stands behind, unseen."""
        torch = require_torch()
        longest = max(len(prompt) + len(answer) for prompt, answer in rows)
        inputs = torch.full((len(rows), longest), self._end)
        labels = torch.full((len(rows), longest), UNSEEN)
        for place, (prompt, answer) in enumerate(rows):
            inputs[place, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            labels[place, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
        return inputs, labels

    def marks(self, lessons: Sequence[Lesson]) -> Marks:
        """How it does on answers that it was not shown."""
        torch = require_torch()
        self.model.eval()
        found = []
        for start in range(0, len(lessons), BATCH):
            inputs, labels = self.tensors([self.row(lesson) for lesson in lessons[start : start + BATCH]])
            with torch.inference_mode():
                said = torch.log_softmax(self.model(input_ids=inputs).logits[:, :-1].float(), dim=-1)
            wanted = labels[:, 1:]
            seen = wanted != UNSEEN
            bits = -said.gather(2, wanted.clamp(min=0)[..., None])[..., 0] / math.log(2)
            right = (said.argmax(-1) == wanted) & seen
            found.append(torch.stack([(bits * seen).sum(1), right.sum(1), seen.sum(1)]))
        bits, agreed, tokens = torch.cat(found, dim=1).double().numpy()
        sizes = [len(lesson.answer.encode()) for lesson in lessons]
        return _marked(bits, np.array(sizes, np.float64), agreed, tokens)

    @property
    def _end(self) -> int:
        return int(self.tokenizer.eos_token_id)


def read_folder(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer of a Hugging Face folder, read from there alone, without code or pickles.

    Raises MissingExtraError, and FormatError where that is not what the folder holds.
    """
    require_torch()
    try:
        transformers = import_module("transformers")
    except ModuleNotFoundError:
        raise MissingExtraError(
            "a model in a folder needs transformers, which is not installed", "pip install 'palladion[torch]'"
        ) from None
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **options)
        model = transformers.AutoModelForCausalLM.from_pretrained(str(folder), use_safetensors=True, **options)
    except (OSError, ValueError, KeyError) as error:
        raise FormatError(
            f"{folder} holds no causal language model that can be read: {type(error).__name__}",
            "expected config.json, weights in safetensors, and a tokenizer",
        ) from None
    if tokenizer.eos_token_id is None:
        raise FormatError(f"the tokenizer in {folder} names no token for the end of a text")
    return model.float(), tokenizer


def _marked(bits: Numbers, sizes: Numbers, agreed: Numbers, tokens: Numbers) -> Marks:
    # an empty answer has a token, its end
    return Marks(bits, np.maximum(sizes, 1), agreed, tokens, np.asarray(agreed == tokens, np.float64))


@contextmanager
def _one_thread() -> Iterator[None]:
    """For networks as small as the one of bytes: two threads took twice the cores' time, waiting for each other."""
    torch = require_torch()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _network(seed: int) -> Any:
    torch = require_torch()

    class Block(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
            self.mixed, self.out = torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(WIDTH, WIDTH)
            self.inner = torch.nn.Sequential(
                torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.GELU(), torch.nn.Linear(4 * WIDTH, WIDTH)
            )

        def forward(self, seen: Any) -> Any:
            count, length, _ = seen.shape
            parts = self.mixed(self.before(seen)).view(count, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            looked = torch.nn.functional.scaled_dot_product_attention(*parts, is_causal=True)
            seen = seen + self.out(looked.transpose(1, 2).reshape(count, length, WIDTH))
            return seen + self.inner(self.after(seen))

    class Network(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.tokens = torch.nn.Embedding(TOKENS, WIDTH)
            self.places = torch.nn.Embedding(PROMPT_BYTES + ANSWER_BYTES + 3, WIDTH)
            self.blocks = torch.nn.Sequential(*(Block() for _ in range(LAYERS)))
            self.last = torch.nn.LayerNorm(WIDTH)
            for table in (self.tokens, self.places):
                torch.nn.init.normal_(table.weight, std=0.02)

        def forward(self, numbers: Any) -> Any:
            seen = self.tokens(numbers) + self.places(torch.arange(numbers.shape[1]))
            # the layer that reads tokens writes them, too (Press and Wolf, EACL 2017)
            return self.last(self.blocks(seen)) @ self.tokens.weight.T

    torch.manual_seed(seed)
    return Network()


def _row(lesson: Lesson) -> tuple[list[int], int]:
    """Token numbers of a lesson, and where its answer begins."""
    prompt = list(lesson.prompt.encode()[-PROMPT_BYTES:])
    answer = list(lesson.answer.encode()[:ANSWER_BYTES])
    return [BEGIN, *prompt, ANSWER, *answer, END], len(prompt) + 2


def _tensors(rows: Sequence[tuple[list[int], int]]) -> "tuple[Tensor, Tensor, Tensor]":
    """Inputs and targets (n, longest - 1), and which targets are of an answer."""
    torch = require_torch()
    longest = max(len(row) for row, _ in rows)
    numbers = torch.full((len(rows), longest), PAD)
    of_answer = torch.zeros((len(rows), longest), dtype=torch.bool)
    for place, (row, begin) in enumerate(rows):
        numbers[place, : len(row)] = torch.tensor(row)
        of_answer[place, begin : len(row)] = True
    return numbers[:, :-1], numbers[:, 1:], of_answer[:, 1:]


def _loss(network: Any, rows: Sequence[tuple[list[int], int]], lessons: Sequence[Lesson]) -> Any:
    """Cross entropy with the bytes, or with what is known of their probabilities."""
    torch = require_torch()
    inputs, targets, of_answer = _tensors(rows)
    said = torch.log_softmax(network(inputs), dim=-1)
    lost = -said.gather(2, targets[..., None])[..., 0]
    weights = torch.where(of_answer, 1.0, PROMPT_WEIGHT) * (targets != PAD)
    for index, (lesson, (row, begin)) in enumerate(zip(lessons, rows, strict=True)):
        for offset, shares in lesson.soft:
            place = begin + offset - 1
            if place >= len(row) - 1:
                break
            numbers = torch.tensor([number for number, _ in shares])
            parts = torch.tensor([share for _, share in shares])
            lost[index, place] = -(said[index, place, numbers] * parts).sum()
    return (lost * weights).sum() / weights.sum()


def _batches(count: int, steps: int, generator: np.random.Generator) -> list[list[int]]:
    """Places of lessons for each step: each lesson once before any comes again."""
    wanted = steps * BATCH
    rounds = [generator.permutation(count) for _ in range(-(-wanted // count))]
    order = np.concatenate(rounds)[:wanted].tolist()
    return [order[start : start + BATCH] for start in range(0, wanted, BATCH)]


def _pace(step: int, steps: int) -> float:
    """The rate rises first and falls to 0, as a half wave."""
    warm = max(1, int(WARM_SHARE * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
