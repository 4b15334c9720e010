"""How much of a language model's last layer do log probabilities tell, in full and rounded, and what at the gate?

The models are made by transformers with random weights and known widths; trained ones have a few strong directions
besides. A norm that takes the mean away, as GPT-2's, takes a direction with it, which its bias alone brings back: where
answers are rounded, that one is not seen, and no bar is set. Source: Carlini et al., ICML 2024, arXiv:2403.06634.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import SEED, Report, main
from palladion.policy import RoutePolicy
from palladion.redteam.audit.text_doors import GatedText, OpenText
from palladion.redteam.last_layer import aligned_rms, hidden_size, projection

TOKENS = 12  # of a prompt
ALTERNATIVES = 5
CENTRED = "GPT-2"
TIMES = 10  # the queries that were enough without the gate
QUERIES_MAX = 10**7
# the most that a route can give: what it refuses even then is the two together
ROUTE = RoutePolicy(model="m", logprobs="top5", logit_bias="any")


def measure(report: Report) -> None:
    """Fill the report."""
    if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None:
        report.skip("language models: the torch extra is not installed")
        return
    makers = _makers()
    for name, make in list(makers.items())[: 1 if report.quick else len(makers)]:
        for precision in ("fp32", "one decimal") if report.quick else ("fp32", "bf16", "one decimal"):
            _attack(report, name, make(precision == "bf16"), precision)


class _Text:
    """A model of transformers, asked as text."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.vocabulary, self.hidden = int(model.config.vocab_size), int(model.config.hidden_size)
        self._states: dict[str, NDArray[np.float64]] = {}

    def logits(self, prompt: str) -> NDArray[np.float64]:
        """Logits of the token after `prompt`."""
        import torch

        if prompt not in self._states:
            seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big")
            drawn = np.random.default_rng(seed).integers(0, self.vocabulary, (1, TOKENS))
            with torch.inference_mode():
                found = self._model(torch.from_numpy(drawn)).logits[0, -1]
            self._states[prompt] = found.float().numpy().astype(np.float64)
        return self._states[prompt]

    @property
    def layer(self) -> NDArray[np.float64]:
        """The last layer (vocabulary, hidden)."""
        return np.asarray(self._model.get_output_embeddings().weight.detach().float().numpy(), np.float64)


def _attack(report: Report, name: str, model: _Text, precision: str) -> None:
    service = OpenText(model, alternatives=ALTERNATIVES, decimals=1 if precision == "one decimal" else None)
    width = hidden_size(service, QUERIES_MAX, np.random.default_rng(SEED))
    what = f"{name}, {model.hidden} × {model.vocabulary:,}, {precision}"
    reference = f"{width.queries:,} queries of {ALTERNATIVES} biased tokens, gap {width.gap:.3g}"
    off = abs((width.hidden or 0) - model.hidden)
    if name == CENTRED and precision != "fp32":
        report.add(f"{what}: width is off by", off, "numbers", reference=f"{reference}; its norm takes the mean away")
    else:
        report.at_most(f"{what}: width is off by", off, "numbers", 0, reference=reference)
    gated = hidden_size(GatedText(service, ROUTE), TIMES * width.queries, np.random.default_rng(SEED))
    reference = f"{TIMES}x the queries allowed, {gated.queries:,} sent; {gated.reason}"
    report.at_most(f"{what}: width read at the gate", gated.hidden or 0, "numbers", 0, reference=reference)
    if width.hidden != model.hidden:
        return
    found = projection(service, model.hidden, QUERIES_MAX, np.random.default_rng(SEED))
    error, reference = aligned_rms(found, model.layer), f"{found.queries:,} queries; of the layer's own spread"
    if precision == "fp32":
        report.at_most(f"{what}: error of the layer", error, "RMS", 1e-4, reference=reference)
    else:
        report.add(f"{what}: error of the layer", error, "RMS", reference=reference)


def _makers() -> Mapping[str, Callable[[bool], _Text]]:
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        MistralConfig,
        MistralForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    sizes: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.5}
    gpt2 = GPT2Config(n_embd=48, n_layer=2, n_head=4, vocab_size=500, n_positions=64, initializer_range=0.5)
    mistral = MistralConfig(hidden_size=32, intermediate_size=64, vocab_size=500, num_key_value_heads=2, **sizes)
    llama = LlamaConfig(hidden_size=64, intermediate_size=128, vocab_size=1000, num_key_value_heads=2, **sizes)
    qwen = Qwen2Config(hidden_size=96, intermediate_size=192, vocab_size=1500, num_key_value_heads=2, **sizes)
    return {
        "Mistral": lambda half: _made(MistralForCausalLM, mistral, half),
        "Llama": lambda half: _made(LlamaForCausalLM, llama, half),
        "Qwen2": lambda half: _made(Qwen2ForCausalLM, qwen, half),
        CENTRED: lambda half: _made(GPT2LMHeadModel, gpt2, half),
    }


def _made(kind: Any, config: Any, half: bool) -> _Text:
    import torch

    torch.manual_seed(SEED % 2**32)
    model = kind(config).eval()
    with torch.no_grad():
        for part, numbers in model.named_parameters():
            # norms as training leaves them: with a bias of zero, the last one takes a dimension away
            if "ln_f" in part or part.endswith("norm.weight"):
                numbers.add_(0.2 * torch.randn_like(numbers))
    return _Text(model.to(torch.bfloat16) if half else model)


if __name__ == "__main__":
    main("last_layer", __doc__ or "", measure)
