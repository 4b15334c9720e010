"""Instructions of any kind, made by a program: what a thief asks who knows nothing of a model's work."""

import numpy as np

_FORMS = (
    "Explain {subject} in one sentence.",
    "Write a short poem about {subject}.",
    "List three facts about {subject}.",
    "What is the opposite of {quality}?",
    "Translate into French: {subject} is {quality}.",
    "Is this sentence positive or negative? {subject} is {quality}.",
    "Summarise: {subject} is often called {quality}, and not only by those who know {other}.",
    "Answer yes or no: is {subject} {quality}?",
    "Continue the story: Once there was {subject}, and it was {quality}.",
    "Which is more {quality}, {subject} or {other}?",
    "Write a question whose answer is {subject}.",
    "Correct the grammar: {subject} be more {quality} than {other}.",
    "Name the subject of this text: Most people think of {subject} as {quality}.",
    "How are {subject} and {other} alike?",
    "Give advice to somebody who has to choose between {subject} and {other}.",
    "Classify as a place, a thing or an idea: {subject}.",
)
_SUBJECTS = (
    *("the city of Troy", "a sailing ship", "photosynthesis", "the price of bread", "a wooden horse", "the moon"),
    *(
        "an honest lawyer",
        "the stock market",
        "a winter in the mountains",
        "gravity",
        "a chess game",
        "the printing press",
    ),
    *("coffee", "a public library", "the immune system", "an old bridge", "electric cars", "the human heart"),
    *("a good film", "the French revolution", "a bank account", "rice", "a mobile phone", "the speed of light"),
    *("a family dinner", "clean water", "an open door", "the theory of numbers", "a garden", "a railway station"),
)
_QUALITIES = (
    *("cheap", "beautiful", "dangerous", "old", "simple", "boring", "useful", "famous", "slow", "wonderful"),
    *("strange", "expensive", "quiet", "reliable", "terrible", "modern", "rare", "bright", "heavy", "friendly"),
)


def generic_prompts(count: int, generator: np.random.Generator) -> list[str]:
    """So many; some come again where many are asked for."""
    found = []
    for _ in range(count):
        subject, other = generator.choice(len(_SUBJECTS), 2, replace=False).tolist()
        form, quality = int(generator.integers(len(_FORMS))), int(generator.integers(len(_QUALITIES)))
        found.append(
            _FORMS[form].format(subject=_SUBJECTS[subject], other=_SUBJECTS[other], quality=_QUALITIES[quality])
        )
    return found
