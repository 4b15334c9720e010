"""Arrays in the policy: a wrong table within a table is named by line and key."""

import pytest

from palladion.errors import PolicyError
from palladion.policy import parse_policy
from palladion.policy.tensors import FixedPolicy, TensorPolicy

BEFORE = '[[route]]\nmodel = "a"\n\n[[route]]\nmodel = "b"\nprotocol = "json"\n'


def test_inline_tables_become_tensors_and_constants() -> None:
    inputs = 'inputs = [{ name = "x", type = "int8", shape = [2, -1], path = "$.a[*]" }]'
    text = f'{BEFORE}{inputs}\nfixed = [{{ path = "$.b", value = 1 }}]'
    route = parse_policy(text.encode(), "p.toml").route[1]
    assert route.inputs == (TensorPolicy(name="x", type="int8", shape=(2, -1), path="$.a[*]"),)
    assert route.fixed == (FixedPolicy(path="$.b", value=1),)
    assert hash(route)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            'inputs = [{ name = "x", type = "int8", path = "$..a" }]',
            r"p.toml:7: route.inputs.path: expected a path such as",
        ),
        ('inputs = [{ name = "x", type = "int9", path = "$" }]', "p.toml:7: route.inputs.type: expected bool, int8"),
        ('inputs = [{ name = "x", path = "$" }]', "p.toml:7: route.inputs: it has no type, which is required"),
        ('inputs = [{ nam = "x", type = "int8", path = "$" }]', "p.toml:7: route.inputs.nam: unknown setting"),
        (
            'inputs = [{ name = "x", type = "int8", path = "$", shape = [1, "a"] }]',
            r"p.toml:7: route.inputs.shape: expected int",
        ),
        ("outputs = 3", "p.toml:7: route.outputs: expected array, got 3"),
        ('fixed = [{ path = "$.a", value = [1] }]', r"p.toml:7: route.fixed.value: expected .*, got \[1\]"),
        (
            'fixed = [{ path = "$.a", value = 1 }, { path = "$.b", value = {} }]',
            r"p.toml:7: route.fixed.value: .*, got \{\}",
        ),
    ],
)
def test_a_wrong_table_is_named_with_its_line(line: str, words: str) -> None:
    with pytest.raises(PolicyError, match=words) as caught:
        parse_policy(f"{BEFORE}{line}\n".encode(), "p.toml")
    if "unknown" in words:
        assert caught.value.hints == ("did you mean name?",)
