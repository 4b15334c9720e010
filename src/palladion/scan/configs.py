"""JSON, YAML and text beside or inside of models: what in them makes a loader run code, and chat templates."""

import json
import re
from typing import Any

from palladion.scan.keras import objects, scan_config
from palladion.scan.look import Look
from palladion.scan.pickles.strings import CODE, SHELL, encoded
from palladion.scan.templates import scan_template

TEXT_BYTES_MAX = 64 * 2**20  # a vocabulary has 20 MiB
_REMOTE = re.compile(r"^[\w.-]+/[\w.-]+--[\w.]+$")  # transformers: REPOSITORY--module.Class
_LOCAL_CLASS = re.compile(r"^\w[\w.]*\.[A-Za-z_]\w*$")
_TEMPLATE_KEYS = ("chat_template", "template", "prompt_template", "default_chat_template", "jinja_template")
_YAML_CODE = re.compile(
    r"!!?python/(?:object|name|module|apply|new)|!!?\w*(?:eval|exec|import)\b|tag:yaml\.org,2002:python/|"
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
_INSTANTIATED = ("_target_", "target", "__target__", "_partial_")
_CALLS = re.compile(
    r"^(?:os|posix|nt|subprocess|builtins|sys|shutil|importlib|runpy|pickle|ctypes|socket|pty|webbrowser|code|timeit)\.\w|"
    r"^(?:eval|exec|compile|__import__)$"
)
_TARGET = re.compile(r"(?m)^[ \t]*(?:-[ \t]*)*[\"']?(_target_|__target__|target)[\"']?[ \t]*:[ \t]*[\"']?([^\s\"']+)")
_TARGET_INLINE = re.compile(r"[{,][ \t]*[\"']?(_target_|__target__)[\"']?[ \t]*:[ \t]*[\"']?([^\s\"',}]+)")
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
    if lowered.startswith(("@echo off", "rem ")) or SHELL.search(stripped.split("\n", maxsplit=1)[0][:4096]):
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


def _called(text: str, look: Look, where: str) -> None:
    """Functions that YAML names and Hydra or NeMo calls (CVE-2025-23304), and leave to run what comes along."""
    if _TRUST.search(text) is not None:
        look.add("remote-code", where, f"{where} sets trust_remote_code", "suspicious")
    for pattern in (_TARGET, _TARGET_INLINE):
        for found in pattern.finditer(text):
            if _CALLS.match(found.group(2)):
                message = f"{where}: {found.group(1)} is {found.group(2)!r}, which is called when it is loaded"
                look.add("remote-code", where, message)


def is_python(text: str) -> bool:
    """Whether text is a Python program, rather than words about one (examples in fences count as words)."""
    outside = _FENCE.sub("", text[: 2**20])
    found = _PYTHON.findall(outside)
    if len(found) >= _SUBSTANTIAL:
        words = sum(
            1 for line in outside.splitlines() if line.startswith(("#", "|", "-", "*", ">")) and line[1:2] != "!"
        )
        return len(found) * 8 >= words or "def " in outside
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
        len(value) < 10_000
        and (CODE.search(value) or SHELL.search(value))
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
    name = item.get("_class_name")
    if isinstance(name, list) or (isinstance(name, str) and "." in name):
        look.add("remote-code", where, f"{where}: _class_name names code that comes with the model", "suspicious")
    if "_diffusers_version" in item:
        for key, value in item.items():
            if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and _unusual(value[0]):
                look.add("remote-code", where, f"{where}: {key} comes from the module {value[0]!r}", "suspicious")


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
