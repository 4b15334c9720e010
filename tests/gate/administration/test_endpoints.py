"""The table of paths: each has a right, none is found by another's name."""

import pytest

from palladion.gate.administration.endpoints import ENDPOINTS, find_endpoint
from palladion.gate.administration.roles import ACTIONS


def test_every_path_has_a_right_and_what_changes_something_is_the_desks() -> None:
    for endpoint in ENDPOINTS:
        if endpoint.method == "GET":
            assert endpoint.right in {"own", *ACTIONS}, endpoint.path
        else:
            assert (endpoint.method, endpoint.right) == ("POST", "desk"), endpoint.path
    assert [item.path for item in ENDPOINTS if item.right == "own"] == ["whoami"]


def test_no_path_stands_twice() -> None:
    assert len({(item.method, item.path) for item in ENDPOINTS}) == len(ENDPOINTS)


def test_parts_that_vary_are_found() -> None:
    endpoint, parts, _ = find_endpoint("GET", "clients/acme/web")
    assert endpoint is not None
    assert (endpoint.path, parts) == ("clients/{organisation}/{name}", {"organisation": "acme", "name": "web"})


@pytest.mark.parametrize("path", ["", "/", "whoami/", "/whoami", "clients//web", "clients/acme/", "Whoami", "a/b/c/d"])
def test_what_is_no_path_is_none(path: str) -> None:
    assert find_endpoint("GET", path) == (None, {}, [])


def test_another_method_is_told_which_there_are() -> None:
    assert find_endpoint("PUT", "proposals/ff") == (None, {}, ["POST"])
    assert find_endpoint("GET", "changes") == (None, {}, ["POST"])


def test_every_right_to_read_has_a_page() -> None:
    reads = {action for action in ACTIONS if action.endswith(".read")}
    assert {item.right for item in ENDPOINTS} >= reads
