"""A real `transformers serve` with a tiny random Llama, started for the length of a block; skips where it cannot be.

It runs in the tests' own environment, where torch and transformers are, with what only it needs from a peer's.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tools import peers

from .mlserver import free_port

WAIT_SECONDS_MAX = 180.0  # importing torch takes most of it where much else goes on
POLL_SECONDS = 0.2
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "


@contextmanager
def running(folder: Path) -> Iterator[tuple[str, str]]:
    """The server's address, and the name of its model there. Its files go into `folder`."""
    pytest.importorskip("torch", reason="this needs torch: pip install 'palladion[torch]'")
    pytest.importorskip("transformers", reason="this needs transformers: pip install 'palladion[torch]'")
    programs = peers.programs("transformers")
    if programs is None:
        pytest.skip("this needs what `transformers serve` needs beside: python -m tools.peers transformers")
    model, port = folder / "model", free_port()
    write_model(model)
    beside = programs.parent / "lib" / PYTHON / "site-packages"
    environment = {**os.environ, "PYTHONPATH": str(beside), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)}
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment)
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(f"{address}/health", process, folder / "log")
            yield address, str(model)
        finally:
            process.kill()
            process.wait(WAIT_SECONDS_MAX)


def write_model(folder: Path) -> None:
    """A Llama of two layers with random weights, whose tokens are bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<s>", "</s>"]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        bos_token_id=vocabulary["<s>"],
        eos_token_id=vocabulary["</s>"],
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def _wait(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + WAIT_SECONDS_MAX
    while time.monotonic() < until:
        if process.poll() is not None:
            pytest.fail(f"transformers serve ended with {process.returncode}:\n{log.read_text()[-2000:]}")
        try:
            with urlopen(address, timeout=POLL_SECONDS) as answer:
                if answer.status == 200:
                    return
        except (URLError, TimeoutError, ConnectionError):
            time.sleep(POLL_SECONDS)
    pytest.fail(f"transformers serve was not ready in {WAIT_SECONDS_MAX:g} s:\n{log.read_text()[-2000:]}")
