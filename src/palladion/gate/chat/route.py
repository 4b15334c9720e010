"""One language model behind the gate: its policy, its server, and what requests to it may say.

Which routes there are is in `routes`; what a request becomes, in `turn`.
"""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, get_args

import msgspec

from palladion.errors import PolicyError
from palladion.gate.callers import WATCH, Caller
from palladion.gate.chat.asked import ChatAsked
from palladion.gate.chat.encoding import Encoding
from palladion.gate.chat.events import MEDIA_TYPE
from palladion.gate.chat.kinds import KINDS, Asked
from palladion.gate.chat.marks import TextMarks
from palladion.gate.chat.pieces import bounded, decode
from palladion.gate.chat.terms import Terms, terms
from palladion.gate.disclosure import Level
from palladion.gate.disclosure.terms import Own
from palladion.gate.modes import Modes
from palladion.gate.problems import Problem
from palladion.gate.requests import JSON
from palladion.gate.upstream.errors import UpstreamError
from palladion.gate.upstream.pool import Streamed, Upstream
from palladion.policy import RoutePolicy
from palladion.watch.text.watched import WatchedTexts

log = logging.getLogger("palladion.gate")

# Fields that no policy can let through, of vLLM, SGLang, TGI, llama.cpp and Ollama: code of the client's choice (logits
# processors by name, templates, adapters by path), other names for the number of tokens, marks, prompts of others
# (caches, transfers), and what tells of the inside of the model.
NEVER = frozenset(
    {
        "adapter", "add_generation_prompt", "allowed_token_ids", "best_of", "bootstrap_host", "bootstrap_port",
        "bootstrap_room", "cache_prompt", "cache_salt", "chat_template", "chat_template_kwargs",
        "continue_final_message", "custom_logit_processor", "custom_params", "data_parallel_rank",
        "decoder_input_details", "details", "echo", "extra_body", "guidance_scale", "id_slot", "input_embeds",
        "input_ids", "keep_alive", "kv_transfer_params", "logits_processors", "logprob_start_len",
        "logprob_token_ids", "lora", "lora_path", "max_new_tokens", "messages", "mm_processor_kwargs", "model",
        "n_predict", "n_probs", "num_predict", "options", "post_sampling_probs", "priority", "prompt",
        "prompt_embeds", "prompt_logprobs", "request_id", "response_fields", "return_hidden_states",
        "return_logprob", "return_prompt_token_ids", "return_text_in_logprobs", "return_token_ids",
        "return_tokens", "return_tokens_as_token_ids", "rid", "sampling_params", "session_params",
        "speculative_config", "stream", "top_logprobs_num", "top_n_tokens", "truncate_prompt_tokens",
        "use_beam_search", "vllm_xargs", "watermark", "watermark_config", "watermarking",
    }
)  # fmt: skip
_HEADERS = ((b"content-type", JSON),)  # shared by all requests, so that nobody may add to it


class ModelRoute:
    """A route to a language model."""

    def __init__(
        self,
        policy: RoutePolicy,
        server: Upstream,
        marks: TextMarks | None = None,
        calibration: WatchedTexts | None = None,
        encoding: Encoding | None = None,
    ) -> None:
        """Without a `calibration` it is not watched; `encoding` is for one with an encoder.

        Raises PolicyError for extra fields that cannot be let through.
        """
        refused = sorted(NEVER.intersection(policy.extra_fields))
        if refused:
            raise PolicyError(f"route {policy.route}: {refused[0]} is a field that no client may send")
        self.policy = policy
        self.server = server
        self.marks = marks
        self.calibration = calibration
        self.encoding = encoding
        self.upstream_model = policy.upstream_model or policy.model
        self._given: Mapping[Level, Terms] = {level: terms(policy, level) for level in get_args(Level)}
        self._decoders = {path: _decoder(kind.asked, policy) for path, kind in KINDS.items()}

    def given_to(self, caller: Caller, modes: Modes, promises: Own) -> tuple[Level, Terms] | None:
        """What a caller is given, and the level of disclosure that it is; None for nothing, it is suspended.

        As of arrays (`disclosure.terms`): who was promised a precision keeps all of it until a person decides.
        """
        level = level_given(caller, self.policy, modes, promises)
        if level is None:
            return None
        own = promises.get((caller.client.organisation, caller.client.name)) if promises else None
        return level, self._given[level] if own is None else terms(self.policy, level, own)

    def decode(self, kind: str, body: bytes) -> Asked:
        """What a request asks, within what the route ever gives. Raises Problem."""
        asked: Asked = decode(self._decoders[kind], body)
        for name in self.policy.extra_fields:
            bounded(getattr(asked, name), name)
        asked.check(self.policy)
        return asked

    async def ask(self, kind: str, body: bytes) -> bytes:
        """The server's whole answer. Raises Problem."""
        try:
            answer = await self.server.ask(b"POST", kind.encode(), _HEADERS, body)
            self._check(answer.status, answer.headers, JSON)
        except UpstreamError as error:
            raise self.failed(error.message, busy=error.kind == "busy") from None
        self.server.well = True
        return answer.body

    @asynccontextmanager
    async def stream(self, kind: str, body: bytes) -> AsyncIterator[Streamed]:
        """The server's answer as it comes. Raises Problem before it does, and UpstreamError within."""
        opening = True
        try:
            async with self.server.stream(b"POST", kind.encode(), _HEADERS, body) as parts:
                self._check(parts.status, parts.headers, MEDIA_TYPE)
                opening = False
                self.server.well = True
                yield parts
        except UpstreamError as error:
            if not opening:
                raise
            raise self.failed(error.message, busy=error.kind == "busy") from None

    def failed(self, reason: str, *, busy: bool = False) -> Problem:
        """What the client is told; the operator is told why, once until it works again."""
        if busy:
            return Problem("busy", retry_after_seconds=1)
        if self.server.well:
            self.server.well = False
            log.error("%s: %s", self.policy.route, reason)
        return Problem("upstream-failed", retry_after_seconds=1)

    def _check(self, status: int, headers: Sequence[tuple[bytes, bytes]], media_type: bytes) -> None:
        if status in {400, 404, 413, 422}:
            # what the server says of it may quote its settings: a prompt that is too long is the usual reason
            raise Problem("bad-input", "the model does not take this: it is too long, or asks for what it cannot do")
        if status in {429, 503}:
            raise Problem("busy", retry_after_seconds=1)
        kind = dict(headers).get(b"content-type", b"").partition(b";")[0].strip().lower()
        if status != 200 or kind != media_type:
            raise self.failed(
                f"the server answered with status {status} and another content than {media_type.decode()}"
            )


def level_given(caller: Caller, route: RoutePolicy, modes: Modes, promises: Own) -> Level | None:
    """The level of disclosure that a caller's answers have on a route; None for nothing, it is suspended."""
    level = modes.level(caller, route)
    promised = bool(promises) and (caller.client.organisation, caller.client.name) in promises
    return "contract" if level is not None and promised and caller.decided_by == WATCH else level


def _decoder(kind: type[Asked], policy: RoutePolicy) -> "msgspec.json.Decoder[Any]":
    known = {field.name for field in msgspec.structs.fields(kind)}
    taken = sorted(known.intersection(policy.extra_fields))
    if taken and kind is ChatAsked:
        raise PolicyError(f"route {policy.route}: {taken[0]} is no extra field, it is known")
    extra = [(name, Any, None) for name in policy.extra_fields if name not in known]
    asked = msgspec.defstruct(
        kind.__name__, extra, bases=(kind,), kw_only=True, forbid_unknown_fields=True, omit_defaults=True
    )
    return msgspec.json.Decoder(asked)
