"""How much of a language model does a student get by asking it, with the gate's disclosure off and on?

The model: a small Llama trained here on reviews with their sentiment (SST-2) and on prompts of twenty tasks, which it
continues. The thief's student is a GPT of bytes; beside it stands the same one, taught as many other texts.
"""

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.mark_subjects import DATA
from bench.report import SEED, Report, main
from palladion.policy import RoutePolicy
from palladion.redteam.audit.text_answers import DEPLOYED, UNDEFENDED, FolderText, doors_of
from palladion.redteam.distilling import (
    THIEVES,
    Quarry,
    TextApi,
    Way,
    bits_per_byte,
    gained,
    harvest,
    held_out,
    taught,
    unrelated,
    untouched,
)
from palladion.redteam.prompts import Prompts, read_prompts
from palladion.redteam.text_students import ByteStudent, Lesson

REVIEWS, TASKS, TASK_PROMPTS = 3000, 20, 60
PIECE_CHARACTERS = 90  # of a prompt that is to be continued, and as many again of what follows
VOCABULARY = 1500
BUDGETS, BUDGETS_QUICK = (100, 400, 1600), (100,)
STEPS, STEPS_QUICK = 400, 40  # of learning, fewer for few lessons: with 150, 1,600 lessons taught less than 400
SEEDS = 1
HELD_OUT, HELD_OUT_QUICK = 150, 40
OWN = "own prompts"
WAYS: tuple[tuple[str, Way], ...] = ((OWN, "greedy"), (OWN, "raw"), (OWN, "averaged"), ("generic", "greedy"))


def measure(report: Report) -> None:
    """Fill the report."""
    if not (DATA / "sst2_train.tsv.gz").exists():
        report.skip("needs the reviews and prompts of the shared folder")
        return
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        report.skip("needs the torch extra")
        return
    texts = _texts()
    prompts = Prompts({task: [asked for asked, _ in pairs] for task, pairs in texts.items()})
    with TemporaryDirectory() as folder:
        train_victim(Path(folder), [pair for pairs in texts.values() for pair in pairs], quick=report.quick)
        victim = FolderText(Path(folder), seed=SEED)
        theirs, own = prompts.halves()
        asked = held_out(own, HELD_OUT_QUICK if report.quick else HELD_OUT, np.random.default_rng(SEED))
        doors = _doors(victim)
        said = [answer.text for answer in doors["undefended"].answers(asked, temperature=0.0, again=0)]
        quarry = Quarry(theirs, tuple(Lesson(one, other) for one, other in zip(asked, said, strict=True)))
        _steal(report, quarry, doors)


def _doors(victim: FolderText) -> Mapping[str, TextApi]:
    """By what is shown beside answers. Answers themselves are the same, as long as they are as long."""
    shown = doors_of(victim, RoutePolicy(model="m", protocol="openai", upstream="http://127.0.0.1:9", logprobs="top5"))
    return {"undefended": shown[UNDEFENDED], "gate, logprobs = top5": shown[DEPLOYED]}


def _steal(report: Report, quarry: Quarry, doors: Mapping[str, TextApi]) -> None:
    budgets = BUDGETS_QUICK if report.quick else BUDGETS
    steps = STEPS_QUICK if report.quick else STEPS
    seeds = range(1, SEEDS + 1)
    student, first = ByteStudent(), doors["undefended"]
    # without log probabilities, as the gate is shipped, every door tells the same
    lessons = {f"{thief}, {way}": _asked(first, quarry, thief, way, budgets[-1]) for thief, way in WAYS}
    for door, api in doors.items():
        lessons[f"own prompts, log probabilities, {door}"] = _asked(api, quarry, OWN, "logprobs", budgets[-1])
    before = bits_per_byte(untouched(student, quarry, [1]))
    report.add("before any lesson", before, "bits for a byte", reference=f"{len(quarry.held_out)} held-out answers")
    for queries in budgets:
        any_lessons = next(iter(lessons.values()))[:queries]
        other = unrelated(any_lessons, quarry.prompts, np.random.default_rng(SEED))
        control = taught(student, other, quarry, steps, seeds)
        report.add(f"control, {queries:,} texts", bits_per_byte(control), "bits for a byte", reference="other texts")
        for what, kept in lessons.items():
            found = gained(taught(student, kept[:queries], quarry, steps, seeds), control, SEED)
            reference = (
                f"{found.gain.low:.3f} to {found.gain.high:.3f}; {found.bits.mean:.2f} bits; next bytes "
                f"{found.agreement.mean:.3f}, whole answers {found.exact.mean:.3f}"
            )
            report.add(f"{queries:,} queries: {what}", found.gain.mean, "of the surprise", reference=reference)


def _asked(api: TextApi, quarry: Quarry, thief: str, way: Way, queries: int) -> list[Lesson]:
    kept: list[Lesson] = []
    prompts = THIEVES[thief].prompts(quarry.prompts, queries, np.random.default_rng(SEED))
    harvest(api, prompts, way, kept)
    return kept


def _texts() -> dict[str, list[tuple[str, str]]]:
    """Prompts and right answers by task."""
    with gzip.open(DATA / "sst2_train.tsv.gz", "rt") as stream:
        lines = [line.rstrip("\n").split("\t") for line in stream][:REVIEWS]
    words = {"0": "negative", "1": "positive"}
    found = {
        "reviews": [
            (f"Review: {text}\nIs it positive or negative?", f"This review is {words[label]}.") for text, label in lines
        ]
    }
    prompts = read_prompts(DATA / "prompts_200_tasks.jsonl.gz")
    for name in prompts.names[:: len(prompts.names) // TASKS][:TASKS]:
        pieces = [text.strip() for text in prompts.tasks[name] if len(text.strip()) >= 2 * PIECE_CHARACTERS]
        pairs = [
            (text[:PIECE_CHARACTERS], text[PIECE_CHARACTERS : 2 * PIECE_CHARACTERS]) for text in pieces[:TASK_PROMPTS]
        ]
        if len(pairs) > 3:
            found[name] = pairs
    return found


def train_victim(folder: Path, pairs: Sequence[tuple[str, str]], *, quick: bool) -> None:
    """A Llama with a tokenizer of its own, as Hugging Face keeps them."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for pair in pairs for text in pair], trainer)
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}<s>"
    fast.save_pretrained(folder)
    torch.manual_seed(SEED % 2**32)
    width, layers, steps = (64, 2, 60) if quick else (128, 4, 300)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    rows = [
        ([*tokenizer.encode(f"{one}\n").ids[-128:], 0], [*tokenizer.encode(other).ids[:40], 1]) for one, other in pairs
    ]
    _train(model, rows, steps)
    model.save_pretrained(folder)


def _train(model: Any, rows: Sequence[tuple[list[int], list[int]]], steps: int) -> None:
    """Cross entropy of answers, and a fifth as much of prompts."""
    import torch

    generator = np.random.default_rng(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.01)

    def pace(step: int) -> float:
        return min(1.0, (step + 1) / 20) * (1 - step / steps)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, pace)
    model.train()
    for _ in range(steps):
        chosen = [rows[place] for place in generator.integers(0, len(rows), 16).tolist()]
        longest = max(len(one) + len(other) for one, other in chosen)
        inputs = torch.ones((len(chosen), longest), dtype=torch.long)
        weights = torch.zeros((len(chosen), longest))
        for place, (one, other) in enumerate(chosen):
            inputs[place, : len(one) + len(other)] = torch.tensor(one + other)
            weights[place, : len(one)] = 0.2
            weights[place, len(one) : len(one) + len(other)] = 1.0
        said = torch.log_softmax(model(input_ids=inputs).logits[:, :-1], dim=-1)
        lost = -said.gather(2, inputs[:, 1:, None])[..., 0] * weights[:, 1:]
        optimizer.zero_grad()
        (lost.sum() / weights[:, 1:].sum()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


if __name__ == "__main__":
    main("redteam_text", __doc__ or "", measure)
