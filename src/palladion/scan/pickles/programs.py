"""Words by which program text, commands for a shell, and the names in a pickle are told from other text."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from palladion.scan.look import Look

_MODULES = (
    rb"(?:os|posix|nt|subprocess|builtins|__builtin__|__builtins__|sys|runpy|commands|socket|shutil|importlib|pty|"
    rb"pickle|_pickle|marshal|ctypes|code|operator|functools|webbrowser|asyncio|timeit|cProfile|profile|pdb|bdb|"
    rb"platform|multiprocessing|pip|requests|urllib)(?:\.\w+)*"
)
# A name as pickles write it: with line feeds, or as two short strings before STACK_GLOBAL.
NAMED = re.compile(
    rb"[ci]" + _MODULES + rb"\n\w[\w.]*\n|\x8c." + _MODULES + rb"(?:\x94|q.)?\x8c.\w[\w.]*(?:\x94|q.)?\x93", re.DOTALL
)
_RUNNERS = r"(?:os|posix|nt|subprocess|pty|ctypes|runpy|importlib|socket|shutil|marshal|pickle|builtins|commands)"
CODE = re.compile(
    r"(?<![\w.])(?:__import__|eval|exec|execfile)\s*\(|\b(?:os\.(?:system|popen|exec[lv]\w*|spawn\w+)|"
    r"subprocess\.(?:\w+)|importlib\.import_module|pty\.spawn|socket\.socket|ctypes\.CDLL|(?:pickle|marshal)\.loads?|"
    r"__subclasses__|commands\.getoutput)\s*[(\[.]|\b__builtins__[\"']?\s?[(\[.,\]]|"
    rf"\bfrom[ \t]{{1,9}}{_RUNNERS}(?:\.\w{{1,40}}){{0,3}}[ \t]{{1,9}}import[ \t]{{1,9}}[*(\w]|"
    rf"\bimport[ \t]{{1,9}}{_RUNNERS}(?:\.\w{{1,40}}){{0,3}}[ \t]{{1,9}}as[ \t]{{1,9}}\w|"
    rf"(?m:^[ \t]{{0,40}}import[ \t]{{1,9}}{_RUNNERS}[ \t]{{0,9}}(?:[;,]|$))"
)
# What people type into a shell, and browsers run.
SHELL = re.compile(
    r"\b(?:curl|wget)\b[^\n|]{0,200}\|\s*(?:sudo\s+)?(?:ba|z|da)?sh\b|\brm\s+-rf?\s+[/~$]|/bin/(?:ba)?sh\b|\bnc\s+-[el]|"
    r"<script\b|javascript:|\bpowershell(?:\.exe)?\s+-|\bcmd\.exe\b|\bchmod\s+(?:\+x|777)|\bbash\s+-[ci]\b|/etc/(?:passwd|shadow)|"
    r"\bimport\s+(?:os|subprocess|socket|pty|ctypes)\s*(?:[;,]|$)"
)
# One of these stands in all that the two find: a text without them is passed in a hundredth of the time.
_CODE_WORDS = (
    "import", "eval", "exec", "os.", "subprocess.", "pty.spawn", "socket.socket", "ctypes.CDLL", ".load",
    "__subclasses__", "getoutput", "__builtins__",
)  # fmt: skip
_SHELL_WORDS = (
    "curl", "wget", "-r", "/bin/", "-e", "-l", "<script", "javascript:", "powershell", "cmd.exe", "chmod", "bash",
    "/etc/", "import",
)  # fmt: skip


def program_in(text: str, look: "Look") -> bool:
    """Whether `text` holds a program, or commands for a shell. Raises LimitError where that took too long."""
    found = None
    if any(word in text for word in _CODE_WORDS):
        look.search(len(text) // 2)
        found = CODE.search(text)
    if found is None and any(word in text for word in _SHELL_WORDS):
        look.search(len(text) // 2)
        found = SHELL.search(text)
    return found is not None
