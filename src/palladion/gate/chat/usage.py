"""How many tokens a request cost: what the upstream says, as far as it can be true, and what was seen go by.

An upstream that reports too little would let a client past its budget, one that reports too much would spend it.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

# An answer of so many bytes has at least one token: the average is 3 to 5 in the vocabularies of today.
BYTES_PER_TOKEN_MAX = 16
BYTES_PER_TOKEN = 4  # where nothing is reported
Count = Annotated[int, Meta(ge=0, le=2**40)]


class Usage(msgspec.Struct):
    """What an upstream reports. How much of a prompt was cached is left out: it tells of the prompts of others."""

    prompt_tokens: Count = 0
    completion_tokens: Count | None = None
    total_tokens: Count = 0


class Tally:
    """Counts one request's tokens."""

    def __init__(self, request_bytes: int, completion_max: int) -> None:
        """`completion_max` is the most that was asked for, all answers together."""
        self._request_bytes = request_bytes
        self._completion_max = completion_max
        self._prompt: int | None = None
        self._completion: int | None = None
        self._pieces = 0
        self._bytes = 0
        self.characters = 0  # of all answers, what the client is not told included

    def see(self, text: str) -> None:
        """A piece of an answer came."""
        length = len(text)
        self._pieces += 1
        self.characters += length
        self._bytes += length if text.isascii() else len(text.encode(errors="surrogatepass"))

    def report(self, prompt: int, completion: int) -> None:
        """The upstream says so; the last word counts."""
        self._prompt, self._completion = prompt, completion

    @property
    def so_far(self) -> int:
        """Tokens generated, at least, while the answer still comes: a piece has one."""
        return max(self._pieces, -(-self._bytes // BYTES_PER_TOKEN_MAX))

    @property
    def prompt(self) -> int:
        """Tokens of the prompt: not more than the request has bytes."""
        if self._prompt is None:
            return -(-self._request_bytes // BYTES_PER_TOKEN)
        return min(self._prompt, self._request_bytes)

    @property
    def completion(self) -> int:
        """Tokens of all answers: not more than were asked for, and not less than their text shows."""
        least = -(-self._bytes // BYTES_PER_TOKEN_MAX)
        if self._completion is None:
            return max(self._pieces, -(-self._bytes // BYTES_PER_TOKEN))
        return max(min(self._completion, self._completion_max), least)

    @property
    def total(self) -> int:
        """Both together: what is charged."""
        return self.prompt + self.completion
