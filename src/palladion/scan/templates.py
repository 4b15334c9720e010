"""Chat templates (Jinja): what in them only serves to leave the sandbox, or to run without one (CVE-2024-34359).

A template of a model formats messages. It has no reason to reach for names with underscores in front, to build such
names from pieces, to call what Jinja hands to web pages, or to include other templates.
"""

import codecs
import re
import warnings

from palladion.scan.look import Look

TEMPLATE_CHARACTERS_MAX = 2**20  # the longest of known models has some 60,000
_BLOCK = re.compile(r"\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_UNDERSCORE_ATTRIBUTE = re.compile(r"\.\s*_\w*")
_HIDDEN_NAME = re.compile(r"__\w*|\b_(?:module|load_form_data|fail_with_undefined_error|root|environment)\b")
_FILTERS = re.compile(r"\|\s*(?:attr|pprint|xmlattr|eval|exec|import|system|shell)\b")
_MAPPED = re.compile(r"\bmap\s*\(\s*(?:attribute\s*=\s*)?['\"](?:_|attr\b)")
_GLOBALS = re.compile(
    r"(?<![\w.'\"])(?:lipsum|cycler|joiner|self|request|config|url_for|get_flashed_messages|session|g|application|app|"
    r"os|sys|subprocess|builtins|importlib|popen|system|eval|exec|open|getattr|setattr|globals|locals|vars|dir|import_module|"
    r"environ|env|handler|settings|debug)\s*(?:\.|\(|\[|\|)"
)
_METHODS = re.compile(
    r"\.\s*(?:mro|gi_frame|gi_code|cr_frame|ag_frame|f_globals|f_builtins|f_back|tb_frame|func_globals|func_code|"
    r"popen|system|check_output|Popen|subclasses|read_text|write_text|environ|getenv|format_map|update|setdefault|"
    r"encode|decode|urlopen|connect|load_module|import_module|find_spec)\b"
)
_FORMAT = re.compile(r"\.\s*format\s*\(|\|\s*format\b")
_STATEMENT = re.compile(r"\{%-?\+?\s*(?:include|import|from|extends|debug|call)\b")
_COMPUTED = re.compile(r"\[[^\[\]]*(?:[*~]|\bjoin\b)[^\[\]]*\]")  # a subscript that is put together
_DANGEROUS_WORDS = re.compile(
    r"__(?:class|init|globals|builtins|base|bases|mro|subclasses|import|dict|getattribute|reduce|call|code|func|module|"
    r"loader|self|new|getitem|subclasshook)__|\b(?:os\.popen|os\.system|subprocess|popen|eval\(|exec\(|import os)|"
    r"/etc/passwd"
)


def scan_template(text: str, look: Look, where: str) -> None:
    """Report what a chat template has no need of."""
    if len(text) > TEMPLATE_CHARACTERS_MAX:
        look.add("template", where, f"{where} has {len(text)} characters, more than a chat template has")
        return
    if "{{" not in text and "{%" not in text:
        return
    if (found := _STATEMENT.search(text)) is not None:
        word = found.group().strip("{%-+ ")
        grade_refused = word not in {"call"}
        look.add("template", where, f"{where} has a statement {word}", "refused" if grade_refused else "suspicious")
    for block in _BLOCK.finditer(text):
        if (said := _reason(block.group())) is not None:
            look.add("template", where, f"{where} {said}")
            return
    whole = " ".join(found.group() for found in _BLOCK.finditer(text))
    code = _STRING.sub("''", whole)
    if _COMPUTED.search(code) and any(found.group()[1:-1] in {"_", "__"} for found in _STRING.finditer(whole)):
        look.add("template", where, f"{where} builds a name from pieces")
        return
    # outside of blocks that could be told apart too: what Jinja takes for one may be cut otherwise
    if (found := _DANGEROUS_WORDS.search(text)) is not None:
        look.add("template", where, f"{where} holds {found.group()!r}", "suspicious")


def _reason(block: str) -> str | None:
    """Why a block does not belong into a chat template; None if it may."""
    strings = [_unescaped(found.group()[1:-1]) for found in _STRING.finditer(block)]
    code = _STRING.sub("''", block)
    if (found := _UNDERSCORE_ATTRIBUTE.search(code)) is not None:
        return f"reaches for the hidden attribute {found.group().strip('. ')!r}"
    if (found := _HIDDEN_NAME.search(code)) is not None:
        return f"uses the hidden name {found.group()!r}"
    if (found := _FILTERS.search(code) or _MAPPED.search(block)) is not None:
        return f"uses {found.group().strip('| ')!r}, which reaches for attributes by computed names"
    if (found := _GLOBALS.search(code)) is not None:
        return f"uses {found.group().strip()!r}, from which the sandbox can be left"
    if (found := _METHODS.search(code)) is not None:
        return f"calls {found.group().strip('. ')!r}, which no chat template needs"
    for text in strings:
        if _DANGEROUS_WORDS.search(text):
            return f"holds the text {text[:60]!r}"
    joined = "".join(strings)
    if _DANGEROUS_WORDS.search(joined) or re.search(r"\[\s*''\s*(?:~|\+|\|\s*(?:join|replace|reverse|format))", code):
        return "builds a name from pieces"
    if any(re.search(r"^__[a-z]|[a-z]__$", text) for text in strings) or (
        any(text in {"_", "__"} for text in strings) and re.search(r"[*~]", code)
    ):
        return "builds a name from pieces"
    if _FORMAT.search(code) and any(re.search(r"\{[^}]*[.\[]|%c|_", text) for text in strings):
        return "formats a text that reaches for attributes"
    return None


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that mean nothing
            return codecs.decode(text.encode("latin-1", "backslashreplace"), "unicode_escape")
    except (UnicodeDecodeError, ValueError):
        return text
