"""The template: complete, all comments, and what is put into it comes out again."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.policy import (
    AttestationPolicy,
    ContractPolicy,
    IssuerPolicy,
    Policy,
    RoutePolicy,
    parse_policy,
    settings,
    template,
)
from palladion.policy.alerting import AlertPolicy
from palladion.policy.encrypted import EncryptedPolicy
from palladion.policy.intelligence import FeedPolicy


def _parse(text: str) -> Policy:
    return parse_policy(text.encode(), "palladion.toml")


def test_the_template_is_all_comments_and_gives_the_defaults() -> None:
    assert _parse(template()) == Policy()
    assert all(not table for table in tomllib.loads(template()).values())


def test_the_template_shows_each_setting_with_its_default() -> None:
    uncommented = "\n".join(
        line.removeprefix("# ")
        if line.startswith("# [[") or (" = " in line and line[2:].split(" = ")[0].isidentifier())
        else line
        for line in template().splitlines()
    )
    document = tomllib.loads(uncommented)
    tables = [
        (name, item) for name, table in document.items() for item in (table if isinstance(table, list) else [table])
    ]
    assert {f"{name}.{key}" for name, table in tables for key in table} == {s.name for s in settings()}
    issuer = IssuerPolicy(url="https://login.example.com/acme", audience="https://gate.example.com")
    contract = ContractPolicy(client="acme/web")
    machine = AttestationPolicy(name="cvm", tee="tdx", measurements=("mrtd=7a1e5c266c0108db",))
    assert _parse(uncommented) == Policy(
        issuer=(issuer,),
        contract=(contract,),
        alert=(AlertPolicy(name="pager"),),
        feed=(FeedPolicy(name="tor-exits"),),
        route=(RoutePolicy(model="fraud"),),
        attestation=(machine,),
        encrypted=(EncryptedPolicy(model="fraud"),),
    )


def test_a_value_given_to_the_template_is_set() -> None:
    text = template({"keys.escrow": ("one", 'tw"o'), "scan.file_bytes_max": 5, "protect.promote_first": False})
    policy = _parse(text)
    assert policy.keys.escrow == ("one", 'tw"o')
    assert policy.scan.file_bytes_max == 5
    assert policy.protect.promote_first is False


def test_a_setting_that_does_not_exist_cannot_be_put_into_the_template() -> None:
    with pytest.raises(ValueError, match=r"no such setting: keys\.colour"):
        template({"keys.colour": 1})


@pytest.mark.slow
@given(st.text(st.characters(codec="utf-8", exclude_characters="\x7f")))
def test_any_text_survives_the_template(text: str) -> None:
    assert _parse(template({"registry.url": text})).registry.url == text
