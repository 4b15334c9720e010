"""`palladion prove text`: was a text generated here, and for which tenant?"""

import json
from pathlib import Path

import click

from palladion.cli.output import actor, echo, find_installation, json_option, print_json, print_table
from palladion.cli.prove.shared import strength
from palladion.errors import FINDING, INCONCLUSIVE, FormatError, MissingExtraError
from palladion.files import read_limited, storage_errors

TEXT_BYTES_MAX = 64 * 2**20
TOKENS_MIN = 20  # fewer reach no verdict, however strongly they are marked


@click.command("text", epilog="Example: palladion prove text leaked.txt --tokenizer llama/tokenizer.json")
@click.argument(
    "texts", nargs=-1, required=True, metavar="TEXT…", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--tokenizer",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The tokenizer.json of the model that is thought to have written the texts.",
)
@click.option("--tokens", is_flag=True, help="The files hold lists of token numbers as JSON, instead of text.")
@json_option
@click.pass_context
def text(ctx: click.Context, texts: tuple[Path, ...], tokenizer: Path | None, tokens: bool, as_json: bool) -> int:
    """Was the content of TEXT generated here, and for which tenant? All files are tested together.

    Tests every key that `palladion key text` ever gave, but those for TensorRT-LLM; the p-value pays for all of them.
    Needs no model. Some 20 tokens are enough where the model was free, 200 and more where it was nearly sure of each;
    what was paraphrased or translated is not found.
    """
    from palladion.lifecycle.prove import LOG10_P_MAX
    from palladion.lifecycle.text import prove_text

    if tokens == (tokenizer is not None):
        raise click.UsageError("give either --tokenizer or --tokens")
    installation = find_installation(ctx)
    lists = [_token_list(path) if tokenizer is None else _encoded(path, tokenizer) for path in texts]
    outcome = prove_text(installation, installation.open_gate_root(), lists, actor=actor(), subject=texts[0].name)
    found = [(given, finding) for given, finding in outcome if finding.log10_p <= LOG10_P_MAX]
    counted = outcome[0][1].tokens
    if as_json:
        rows = [
            {
                "tenant": given.tenant,
                "epoch": given.epoch,
                "engine": given.engine or "palladion",
                "log10_p": finding.log10_p,
                "found": finding.log10_p <= LOG10_P_MAX,
            }
            for given, finding in outcome
        ]
        print_json({"finding": bool(found), "tokens": counted, "keys": rows})
    elif found:
        for given, finding in found:
            echo(f"generated for {given.tenant} ({given.name.split(', ', 1)[1]}): {strength(finding.log10_p)}")
    elif counted < TOKENS_MIN:
        echo(f"{counted} tokens could be counted, and fewer than {TOKENS_MIN} reach no verdict")
    else:
        echo(f"no finding: no key of ours marked this text (smallest log10 p {outcome[0][1].log10_p:.1f})")
    if not as_json:
        print_table(("tokens counted", "keys tested"), [(f"{counted:,}", len(outcome))])
    if found:
        return FINDING
    return 0 if counted >= TOKENS_MIN else INCONCLUSIVE


def _token_list(path: Path) -> list[int]:
    try:
        document = json.loads(read_limited(path, size_max=TEXT_BYTES_MAX, what="the list of tokens"))
    except ValueError:
        document = None
    if not isinstance(document, list) or any(type(token) is not int or not 0 <= token < 2**32 for token in document):
        raise FormatError(f"{path} holds no list of token numbers, expected JSON such as [17, 4, 101]")
    return document


def _encoded(path: Path, tokenizer: Path) -> list[int]:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtraError("turning text into tokens needs tokenizers", "pip install 'palladion[torch]'") from None
    data = read_limited(path, size_max=TEXT_BYTES_MAX, what="the text")
    with storage_errors(tokenizer):
        try:
            loaded = Tokenizer.from_buffer(tokenizer.read_bytes())
        except Exception as error:  # noqa: BLE001 (the library raises nothing narrower)
            raise FormatError(f"{tokenizer} is no tokenizer.json: {error}") from None
    try:
        written = data.decode()
    except UnicodeDecodeError:
        raise FormatError(f"{path} is not UTF-8") from None
    return list(loaded.encode(written, add_special_tokens=False).ids)
