"""Installed packages as a graph: extras and markers are followed, and only what is installed counts."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from tools.distributions import closure, direct, disk_bytes

from .packages import install


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose packages hide the real ones of the same name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def _palladion(site: Path) -> None:
    requires = [
        "ML_dtypes>=0.5",
        'never-here; python_version < "3"',
        'here; python_version >= "3"',
        'scikit-learn>=1.6; extra == "demo"',
        'pytest; extra == "dev"',
    ]
    install(site, "palladion", requires=requires, says=["Provides-Extra: demo", "Provides-Extra: dev"])


def test_the_core_requires_what_no_extra_adds(site: Path) -> None:
    _palladion(site)
    assert direct() == ["ml-dtypes", "here"]


def test_an_extra_adds_its_own_only(site: Path) -> None:
    _palladion(site)
    # a marker without an extra holds with every extra
    assert set(direct("demo")) - set(direct()) == {"scikit-learn"}


def test_what_is_required_by_what_is_required_is_found(site: Path) -> None:
    install(site, "first", requires=["second>=1"])
    install(site, "second", requires=["third"])
    install(site, "third")
    install(site, "unrelated")
    assert set(closure(["first"])) == {"first", "second", "third"}


def test_packages_that_require_each_other_end(site: Path) -> None:
    install(site, "first", requires=["second"])
    install(site, "second", requires=["first"])
    assert set(closure(["first"])) == {"first", "second"}


def test_an_extra_is_followed_only_where_it_is_asked_for(site: Path) -> None:
    install(site, "first", requires=["second[fast]"])
    install(site, "second", requires=['speedups; extra == "fast"', 'docs; extra == "docs"'])
    install(site, "speedups")
    assert set(closure(["first"])) == {"first", "second", "speedups"}
    assert set(closure(["second"])) == {"second"}


def test_an_extra_asked_for_later_still_counts(site: Path) -> None:
    install(site, "second", requires=['speedups; extra == "fast"'])
    install(site, "first", requires=["second[fast]"])
    install(site, "speedups")
    assert set(closure(["first", "second"])) == {"first", "second", "speedups"}


def test_a_requirement_for_other_machines_is_left_out(site: Path) -> None:
    install(site, "first", requires=['elsewhere; sys_platform == "other"'])
    assert set(closure(["first"])) == {"first"}


def test_names_are_compared_in_one_spelling(site: Path) -> None:
    install(site, "first", requires=["Some_Thing"])
    install(site, "some_thing")
    assert set(closure(["first"])) == {"first", "some-thing"}


def test_a_requirement_that_is_not_installed_is_named(site: Path) -> None:
    install(site, "first", requires=["nowhere-to-be-found"])
    with pytest.raises(PackageNotFoundError, match="nowhere-to-be-found is required and not installed"):
        closure(["first"])


def test_installed_files_count_without_compiled_caches(site: Path) -> None:
    files = {"it/code.py": bytes(100), "it/data.bin": bytes(20), "it/__pycache__/code.pyc": bytes(7000)}
    item = install(site, "it", files=files)
    assert disk_bytes(item) == 120


def test_listed_files_that_are_gone_count_nothing(site: Path) -> None:
    item = install(site, "it", files={"it/code.py": bytes(100), "it/gone.py": bytes(50)})
    (site / "it" / "gone.py").unlink()
    assert disk_bytes(item) == 100
