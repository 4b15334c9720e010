"""Which licences pass: expressions of every shape, what packages say about theirs, and what is refused."""

from pathlib import Path

import pytest

from tools import licences
from tools.licences import complaints, judge, stated

from .packages import install


@pytest.mark.parametrize(
    "expression",
    [
        "MIT",
        "mit",
        "Apache-2.0 WITH LLVM-exception",
        "MIT OR GPL-3.0-only",
        "GPL-3.0-only OR MIT",
        "MIT AND BSD-3-Clause",
        "MIT AND (GPL-2.0-only OR BSD-2-Clause)",
        "((MIT))",
        "MIT OR GPL-3.0-only AND AGPL-3.0-only",
        "AGPL-3.0-only AND GPL-3.0-only OR MIT",
        "Apache-2.0 WITH LLVM-exception AND MIT",
    ],
)
def test_a_licence_that_we_may_use_is_accepted(expression: str) -> None:
    assert judge(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "GPL-3.0-only",
        "GPL-2.0-or-later",
        "AGPL-3.0-only",
        "SSPL-1.0",
        "CC-BY-NC-4.0",
        "PolyForm-Noncommercial-1.0.0",
        "LicenseRef-Proprietary",
        "MIT AND GPL-3.0-only",
        "GPL-3.0-only AND MIT",
        "GPL-3.0-only OR AGPL-3.0-only",
        "(MIT OR GPL-3.0-only) AND AGPL-3.0-only",
        "GPL-2.0-only WITH Classpath-exception-2.0",
        "MIT WITH Commons-Clause",
    ],
)
def test_copyleft_non_commercial_and_unknown_licences_are_refused(expression: str) -> None:
    assert not judge(expression)


@pytest.mark.parametrize(
    "expression",
    ["", "MIT OR", "OR MIT", "MIT AND AND MIT", "(MIT", "MIT)", "()", "MIT BSD-3-Clause", "MIT WITH", "WITH"],
)
def test_what_is_no_expression_raises(expression: str) -> None:
    with pytest.raises(ValueError, match=r"licence|parenthesis"):
        judge(expression)


def test_lgpl_is_accepted_for_plug_ins_only() -> None:
    assert judge("LGPL-3.0-only", plugin=True)
    assert not judge("LGPL-3.0-only")


@pytest.mark.parametrize("expression", ["GPL-3.0-only", "AGPL-3.0-only", "MIT AND GPL-3.0-only"])
def test_a_plug_in_may_not_have_stronger_copyleft(expression: str) -> None:
    assert not judge(expression, plugin=True)


def test_no_copyleft_or_non_commercial_licence_is_on_the_list() -> None:
    assert [name for name in licences.ALLOWED if "GPL" in name or "-NC" in name] == []


@pytest.mark.parametrize(
    ("says", "licence"),
    [
        (["License-Expression: MIT OR Apache-2.0", "License: something else"], "MIT OR Apache-2.0"),
        (["License: Apache License, Version 2.0"], "Apache-2.0"),
        (["License: ISC"], "ISC"),
        (["Classifier: License :: OSI Approved :: BSD License"], "BSD-3-Clause"),
        (["License: MIT", "Classifier: License :: OSI Approved :: BSD License"], "MIT"),
        (["Classifier: License :: OSI Approved"], ""),
        (["Classifier: Programming Language :: Python"], ""),
        ([], ""),
    ],
)
def test_the_most_exact_statement_of_a_package_counts(tmp_path: Path, says: list[str], licence: str) -> None:
    assert stated(install(tmp_path, "it", says=says)).upper() == licence.upper()


def test_a_whole_licence_text_is_no_name(tmp_path: Path) -> None:
    text = ["License: Permission is hereby granted,", "        free of charge, to any person"]
    item = install(tmp_path, "it", says=[*text, "Classifier: License :: OSI Approved :: MIT License"])
    assert stated(item) == "MIT"


def test_several_classifiers_all_apply(tmp_path: Path) -> None:
    says = [f"Classifier: License :: OSI Approved :: {name}" for name in ("MIT License", "BSD License")]
    assert stated(install(tmp_path, "it", says=says)) == "MIT AND BSD-3-CLAUSE"


@pytest.mark.parametrize(
    "says",
    [
        ["License-Expression: GPL-3.0-only"],
        ["License-Expression: MIT OR"],
        ["License: Free for research"],
        ["Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)"],
        [],
    ],
)
def test_a_package_is_named_with_what_it_says(tmp_path: Path, says: list[str]) -> None:
    found = complaints({"it": install(tmp_path, "it", says=says)})
    assert len(found) == 1
    assert found[0].startswith("it 1.0: licence ")
    assert found[0].endswith(" is not accepted")


def test_a_silent_package_is_called_unknown(tmp_path: Path) -> None:
    assert complaints({"it": install(tmp_path, "it")}) == ["it 1.0: licence 'unknown' is not accepted"]


def test_only_named_plug_ins_may_be_lgpl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = ["License-Expression: LGPL-3.0-only"]
    packages = {name: install(tmp_path, name, says=says) for name in ("named", "other")}
    monkeypatch.setattr(licences, "LGPL_PLUGINS", {"named"})
    assert complaints(packages) == ["other 1.0: licence 'LGPL-3.0-only' is not accepted"]
