"""JSON, YAML and text beside or inside of models: what in them makes a loader run code, and chat templates."""

import json
import re
from typing import Any

from palladion.scan.keras import objects, scan_config
from palladion.scan.look import Look
from palladion.scan.pickles.hidden import turned
from palladion.scan.pickles.programs import CODE, SHELL, program_in
from palladion.scan.pickles.strings import encoded
from palladion.scan.templates import scan_template
from palladion.scan.verdict import Grade

TEXT_BYTES_MAX = 64 * 2**20  # a vocabulary has 20 MiB
TEXT_CHARACTERS_MAX = 2**20  # of one value that is searched
_REMOTE = re.compile(r"^[\w.-]+/[\w.-]+--[\w.]+$")  # transformers: REPOSITORY--module.Class
_LOCAL_CLASS = re.compile(r"^\w[\w.]*\.[A-Za-z_]\w*$")
_TEMPLATE_KEYS = ("chat_template", "template", "prompt_template", "default_chat_template", "jinja_template")
_YAML_CODE = re.compile(
    r"!!?python/(?:object|name|module|apply|new)|!!?\w*(?:eval|exec|import)\b|tag:yaml\.org,2002:python/|"
    r"(?:^|[\s\[{,])!ruby/\w+|(?:^|[\s\[{,])!!(?:java|javax|com|org|sun)\.[\w.]+|"
    r"(?:^|[\s\[{,])!\S*%[0-9A-Fa-f]{2}",  # an escape in a tag, which no harmless one needs
    re.MULTILINE,
)
_PYTHON = re.compile(
    r"^(?:import [A-Za-z_][\w.]*(?:,| as |\s*$)|from [A-Za-z_.][\w.]* import |def \w+\(.*\).*:\s*$|"
    r"class \w+(?:\(.*\))?:\s*$|@\w[\w.]*|if __name__ ?== ?)",
    re.MULTILINE,
)
_FENCE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_TRUSTED_MODULES = re.compile(r"^(?:sentence_transformers|transformers|diffusers|torch\.nn)(?:\.[A-Za-z_]\w*)*$")
_LIBRARIES = re.compile(r"(?:transformers|diffusers|peft|torch|timm|sentence_transformers|accelerate)(?:\.|$)")
_TURNED_MIN = 15  # characters of a value that could be a program with its letters moved
_INSTANTIATED = ("_target_", "target", "__target__", "_partial_", "class_path")
_CALLS = re.compile(
    r"^(?:os|posix|nt|subprocess|builtins|sys|shutil|importlib|runpy|pickle|_pickle|ctypes|socket|pty|webbrowser|code|"
    r"timeit|pip|marshal|dill|cloudpickle|joblib|shelve|pdb|bdb|cProfile|profile|urllib|requests|http|ftplib|smtplib|"
    r"pydoc|doctest|ensurepip|idlelib|lib2to3|operator\.(?:attrgetter|methodcaller)|functools\.reduce|"
    r"torch\.(?:load|hub|jit|package|ops\.load_library|utils\.(?:cpp_extension|collect_env))|numpy\.(?:load|fromfile|memmap|save|testing|f2py)|"
    r"pandas\.(?:eval|read_pickle)|hydra\.(?:utils|_internal)|transformers\.dynamic_module_utils)(?:\.\w|$)|"
    r"^(?:eval|exec|compile|__import__)$"
)
_TARGET = re.compile(
    r"(?m)^[ \t]*(?:-[ \t]*)*[\"']?(_target_|__target__|target|class_path)[\"']?[ \t]*:[ \t]*"
    r"(?:[>|][-+]?[ \t]*)?(?:\n[ \t]+)?"
    r"[\"']?([^\s\"']+)"
)
# HyperPyYAML of SpeechBrain: makes and calls what a tag names.
_TAGGED = re.compile(r"!(new|apply|name|applyref|module):([\w.]+)")
# A line of a configuration, with or without a block below it.
_KEYED = re.compile(r"[ \t]*(?:-[ \t]+)*[\"']?[\w.-]{1,64}[\"']?[ \t]*[:=]")
_MMCV = re.compile(r"\w+[ \t]*=[ \t]*dict\(")  # configurations that are programs
_TARGET_INLINE = re.compile(r"[{,][ \t]*[\"']?(_target_|__target__|class_path)[\"']?[ \t]*:[ \t]*[\"']?([^\s\"',}]+)")
_SCRIPT = re.compile(r"<script(?:>|\s[^\n<>]{0,400}>)", re.IGNORECASE)
# How a program begins: a line that is code, and that no text about a model begins with.
_BEGINS = re.compile(
    r"(?:exec|eval|__import__|os\.\w+|subprocess\.\w+)\s*\(|import [A-Za-z_][\w.]*\s*(?:[;,]|\n|$)|"
    r"from [A-Za-z_][\w.]* import \S|[A-Za-z_]\w*\s*=[^=]"
)
_CALLS_CODE = re.compile(
    r"(?m)(?<![\w.])(?:__import__|eval|exec)\s*\(|^\s*(?:import|from)\s+(?:os|posix|nt|subprocess|socket|pty|ctypes|"
    r"shutil|runpy|importlib|marshal|pickle|builtins)\b(?:\.\w+)*(?:\s+import\b|\s+as\b|\s*[;,]|\s*$)"
)
_IMPORT_FIRST = re.compile(
    r"(?:import [A-Za-z_][\w.]*(?: as \w+)?|from [A-Za-z_.][\w.]* import [\w ,*()]+)"
    r"[ \t]*(?:#.*)?\n"
)
# MLflow imports the module, and whatever lies in the folder of code.
_LOADER = re.compile(r"(?m)^[ \t]*(loader_module|code):[ \t]*[\"']?(?!mlflow[.\s\"']|null\b|~|\s)(\S+)")
_COMMENTS = re.compile(r"\A(?:[ \t]*(?:#[^\n]*)?\r?\n)+")
_LIST_MAX = 64  # strings of a list that are looked at: longer ones are vocabularies
_VOCABULARIES = frozenset({"merges", "vocab", "tokens", "labels"})
_TRUST = re.compile(
    r"(?mi)^[ \t]*(?:-[ \t]*)*[\"']?[\w-]*trust_remote_code[\"']?[ \t]*:[ \t]*[\"']?(?:true|yes|on|y|1)\b"
)
_TRUSTING = frozenset({"true", "yes", "on", "1", "y"})
_SUBSTANTIAL = 2  # lines of Python that make a text a program and no words about one


def scan_text(text: str, look: Look, where: str) -> str:
    """Look at text by what it is; gives its format."""
    stripped = text.lstrip("\ufeff \t\r\n")
    if stripped[:1] in {"{", "["}:
        try:
            document = json.loads(text.lstrip("\ufeff"))
        except RecursionError:
            look.add("limit", where, f"{where} is nested deeper than a scan follows")
            return "json"
        except ValueError:
            document = None
        if document is not None:
            encoded(look, where, text)
            scan_document(document, look, where)
            return "json"
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) > 1 and all(line.lstrip()[:1] in {"{", "["} for line in lines[:100]):
            for line in lines[:10_000]:
                try:
                    scan_document(json.loads(line), look, where)
                except (ValueError, RecursionError):
                    break
            encoded(look, where, text)
            return "jsonl"
    return _plain(text, stripped, look, where)


def _plain(text: str, stripped: str, look: Look, where: str) -> str:
    lowered = stripped[:512].lower()
    if stripped.startswith("#!"):
        look.add("program", where, f"{where} is a script, which its first line says how to run")
        return "script"
    if lowered.startswith(("<?xml", "<!doctype", "<pmml", "<net ", "<svg")):
        look.add("format", where, f"{where} is XML, of a kind that nobody here can judge")
        return "xml"
    if lowered.startswith(("<?php", "<script", "<html")):
        look.add("program", where, f"{where} is a script for browsers or servers")
        return "html"
    if _SCRIPT.search(text) is not None:
        look.add("embedded-code", where, f"{where} holds a script for browsers", "suspicious")
    if lowered.startswith(("@echo off", "rem ")) or _starts_shell(stripped):
        look.add("program", where, f"{where} begins as a script for a shell", "suspicious")
        return "script"
    encoded(look, where, text)
    if (found := _YAML_CODE.search(text)) is not None:
        look.add(
            "remote-code", where, f"{where} has the YAML tag {found.group()!r}, which makes objects or calls functions"
        )
    if "{%" in text or ("{{" in text and "}}" in text):
        scan_template(text, look, where)
    _called(text, look, where)
    if is_python(text):
        look.add("source-code", where, f"{where} is Python source, which runs if a loader trusts it", "suspicious")
        return "python"
    return "text"


def _starts_shell(stripped: str) -> bool:
    """Whether the first line is a command; what is for browsers is looked for by its tags."""
    found = SHELL.search(stripped.split("\n", maxsplit=1)[0][:4096])
    return found is not None and not found.group().lower().startswith(("<script", "javascript:"))


def _called(text: str, look: Look, where: str) -> None:
    """Functions that YAML names and Hydra or NeMo calls (CVE-2025-23304), and leave to run what comes along."""
    if _TRUST.search(text) is not None:
        look.add("remote-code", where, f"{where} sets trust_remote_code", "suspicious")
    for found in _TAGGED.finditer(text):
        if _CALLS.match(found.group(2)):
            message = f"{where} has the tag !{found.group(1)}:{found.group(2)}, which is called when it is loaded"
            look.add("remote-code", where, message)
    if _runs_in_values(text):
        look.add("embedded-code", where, f"{where}: a value is program text that runs commands or code", "suspicious")
    if "loader_module:" in text and (loader := _LOADER.search(text)) is not None:
        message = f"{where}: {loader.group(1)} is {loader.group(2)!r}, which is imported when it is loaded"
        look.add("remote-code", where, message, "suspicious")
    for pattern in (_TARGET, _TARGET_INLINE):
        for found in pattern.finditer(text):
            if "\\" in found.group(2) or found.group(2).startswith("*"):
                message = f"{where}: {found.group(1)} is {found.group(2)!r}, which hides what is called"
                look.add("remote-code", where, message, "suspicious")
            elif _CALLS.match(found.group(2)):
                message = f"{where}: {found.group(1)} is {found.group(2)!r}, which is called when it is loaded"
                look.add("remote-code", where, message)


def _runs_in_values(text: str) -> bool:
    """Whether a configuration (YAML, TOML, INI) holds program text as a value, in its line or as a block below it."""
    text = text[:TEXT_CHARACTERS_MAX]
    body = _COMMENTS.sub("", text.lstrip("\ufeff"), count=1)
    first = body.split("\n", maxsplit=1)[0]
    if not (_KEYED.match(first) or first.startswith(("[", "---", "%YAML"))) or "```" in text:
        return False
    for found in CODE.finditer(text):
        lines = text[max(0, found.start() - 2000) : found.start()].split("\n")
        if _KEYED.match(lines[-1] + text[found.start() : found.start() + 1]):
            return True
        indented = [line for line in lines if not line.startswith((" ", "\t")) and line.strip()]
        if (
            lines[-1].startswith((" ", "\t"))
            and indented
            and indented[-1].rstrip().endswith(("|", ">", "|-", ">-", '"' * 3))
        ):
            return True
    return False


def is_python(text: str) -> bool:
    """Whether text is a Python program, rather than words about one (examples in fences count as words)."""
    outside = _FENCE.sub("", text[: 2**20])
    found = _PYTHON.findall(outside)
    if len(found) >= _SUBSTANTIAL:
        words = sum(
            1 for line in outside.splitlines() if line.startswith(("#", "|", "-", "*", ">")) and line[1:2] != "!"
        )
        return len(found) * 8 >= words or "def " in outside
    if _MMCV.match(_COMMENTS.sub("", outside, count=1)):
        return True
    if _IMPORT_FIRST.match(_COMMENTS.sub("", outside, count=1)):
        return True
    if _BEGINS.match(_COMMENTS.sub("", outside, count=1)) and _CALLS_CODE.search(outside):
        return True
    return bool(found and CODE.search(outside)) or bool(
        re.match(r"\s*(?:import|from) \w", outside) and CODE.search(outside)
    )


def scan_document(document: Any, look: Look, where: str) -> None:
    """Look at a JSON document: names of code, templates, and whether it is a Keras model or a notebook."""
    if isinstance(document, dict):
        if "cells" in document and "nbformat" in document:
            look.add("source-code", where, f"{where} is a notebook, whose cells are programs", "suspicious")
        if "class_name" in document and isinstance(document.get("config"), dict):
            scan_config(document, look, where)
            return
    elif isinstance(document, list):
        _modules(document, look, where)
        _listed("the list", document, look, where)
    for item in objects(document, look, where):
        _remote(item, look, where)
        for key in _TEMPLATE_KEYS:
            _templates(item.get(key), look, f"{where}, {key}")
        for key, value in item.items():
            if isinstance(value, str):
                _value(key, value, look, where)
            elif isinstance(value, list) and key not in _VOCABULARIES:
                _listed(key, value, look, where)


def _listed(key: str, values: list[Any], look: Look, where: str) -> None:
    for value in values if len(values) <= _LIST_MAX else ():
        if isinstance(value, str):
            _value(key, value, look, where)


def _value(key: str, value: str, look: Look, where: str) -> None:
    if ("{{" in value or "{%" in value) and key not in _TEMPLATE_KEYS:
        scan_template(value, look, f"{where}, {key[:40]}")
    if key in _INSTANTIATED and _CALLS.match(value):
        look.add("remote-code", where, f"{where}: {key} is {value!r}, which is called when it is loaded")
    elif (
        len(value) < TEXT_CHARACTERS_MAX
        and (program_in(value, look) or (len(value) > _TURNED_MIN and turned(value) is not None))
        and not key.endswith(("description", "readme", "content"))
    ):
        look.add(
            "embedded-code", where, f"{where}: {key[:40]} holds program text that runs commands or code", "suspicious"
        )


def _templates(value: Any, look: Look, where: str) -> None:
    if isinstance(value, str):
        scan_template(value, look, where)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict) and isinstance(item.get("template"), str):
                scan_template(item["template"], look, where)
    elif isinstance(value, dict):
        for item in value.values():
            if isinstance(item, str):
                scan_template(item, look, where)


def _remote(item: dict[str, Any], look: Look, where: str) -> None:
    trusting = item.get("trust_remote_code")
    if trusting is True or (isinstance(trusting, str | int) and str(trusting).lower() in _TRUSTING):
        look.add("remote-code", where, f"{where} sets trust_remote_code: its loader runs code that comes with a model")
    for key in ("auto_map", "custom_pipelines"):
        mapped = item.get(key)
        if not isinstance(mapped, dict | list):
            continue
        names = str(mapped)
        if "--" in names or "://" in names:
            look.add("remote-code", where, f"{where}: {key} takes code from another place")
        elif mapped:
            look.add("remote-code", where, f"{where}: {key} names code that comes with the model", "suspicious")
    _fetched(item, look, where)
    name = item.get("_class_name")
    if isinstance(name, list) or (isinstance(name, str) and "." in name):
        look.add("remote-code", where, f"{where}: _class_name names code that comes with the model", "suspicious")
    if "_diffusers_version" in item:
        for key, value in item.items():
            if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and _unusual(value[0]):
                grade: Grade = "refused" if _CALLS.match(value[0]) else "suspicious"
                look.add("remote-code", where, f"{where}: {key} comes from the module {value[0]!r}", grade)


def _fetched(item: dict[str, Any], look: Look, where: str) -> None:
    """Kernels and programs from a hub, and modules that a loader imports."""
    for key in ("_attn_implementation", "attn_implementation"):
        kernel = item.get(key)
        if isinstance(kernel, str) and "/" in kernel:
            look.add("remote-code", where, f"{where}: {key} takes code from {kernel!r}", "suspicious")
    made = item.get("custom_generate")
    if isinstance(made, str) and "/" in made:
        look.add("remote-code", where, f"{where}: custom_generate takes code from {made!r}", "suspicious")
    types = item.get("types")
    if isinstance(types, dict) and "structure" in item:
        # sentence-transformers: a router imports its parts
        for value in types.values():
            if isinstance(value, str) and not _TRUSTED_MODULES.match(value):
                look.add("remote-code", where, f"{where} makes its loader import {value!r}")
    library = item.get("parent_library")
    if isinstance(library, str) and not _LIBRARIES.match(library):
        look.add("remote-code", where, f"{where}: parent_library makes its loader import {library!r}", "suspicious")


def _unusual(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] not in {
        "diffusers",
        "transformers",
        "onnxruntime",
        "stable_diffusion",
        "optimum",
        "null",
        "flax",
    }


def _modules(document: list[Any], look: Look, where: str) -> None:
    """`modules.json` of sentence-transformers: classes by their dotted names, imported when it is loaded."""
    for item in document:
        if not isinstance(item, dict) or not {"idx", "path", "type"} <= item.keys():
            continue
        if not _TRUSTED_MODULES.match(str(item["type"])):
            look.add("remote-code", where, f"{where} makes its loader import {item['type']!r}")
