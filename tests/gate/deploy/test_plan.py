"""What of a policy matters to those who run its gate."""

from pathlib import PurePosixPath

import pytest

from palladion.errors import PolicyError
from palladion.gate.deploy.plan import Address, Socket, absolute, make_plan, plain, prefixes
from palladion.policy import GatePolicy, IssuerPolicy, OperationsPolicy, Policy, RoutePolicy
from palladion.policy.alerting import AlertPolicy
from palladion.policy.encrypted import EncryptedPolicy

from .plans import CHAT, HERE, THERE, policy, with_operators


def test_addresses_files_and_servers_come_from_the_policy() -> None:
    plan = make_plan(policy())
    assert plan.listen == Address("0.0.0.0", 8710)
    assert plan.operations is None
    assert plan.servers == (
        Address("vllm.models", 8000),
        Address("10.0.0.2", 8443, secure=True),
        Address("login.example.com", 443, secure=True),
    )
    assert plan.files == ("keys/llm", "tls/ca.pem")


def test_keys_in_a_file_are_fetched_from_nobody() -> None:
    def servers(keys: str) -> tuple[Address, ...]:
        issuer = IssuerPolicy(url="https://login.example.com/acme", audience="gate", keys=keys)
        return make_plan(Policy(issuer=(issuer,), route=(HERE,))).servers

    assert servers("etc/keys.json") == ()
    assert servers("https://keys.example.com/set") == (Address("keys.example.com", 443, secure=True),)
    assert servers("") == (Address("login.example.com", 443, secure=True),)


def test_where_alerts_go_is_asked_and_their_files_are_needed() -> None:
    hook = AlertPolicy(name="chat", url="https://hooks.example.com/x", secret="etc/chat.key", ca="etc/ca.pem")
    pager = AlertPolicy(name="pager", kind="pagerduty", secret="etc/pager.key")
    plan = make_plan(Policy(alert=(hook, pager), route=(HERE,)))
    assert plan.servers == (
        Address("hooks.example.com", 443, secure=True),
        Address("events.pagerduty.com", 443, secure=True),
    )
    assert plan.files == ("etc/chat.key", "etc/ca.pem", "etc/pager.key")
    assert (plan.local, plan.extras) == (False, ())
    mail = make_plan(Policy(alert=(AlertPolicy(name="mail", kind="apprise", secret="mail"),), route=(HERE,)))
    assert (mail.local, mail.extras, mail.servers) == (False, ("alerts",), ())


def test_stopping_takes_as_long_as_draining_answering_and_closing() -> None:
    assert make_plan(policy()).stop_seconds == 7 + 20 + 30


def test_a_request_takes_as_long_as_the_slowest_route_allows() -> None:
    assert make_plan(policy(HERE)).request_seconds == 10 + 10
    assert make_plan(policy(HERE, CHAT)).request_seconds == 10 + 600
    assert make_plan(policy(HERE, deadline_ms=1500, body_seconds_max=1)).request_seconds == 3


def test_a_gate_is_local_that_neither_listens_to_nor_asks_others() -> None:
    assert make_plan(Policy(route=(HERE,))).local
    assert make_plan(Policy(gate=GatePolicy(listen="unix:gate.sock"), route=(HERE,))).local
    assert not make_plan(Policy(gate=GatePolicy(listen="0.0.0.0:1"), route=(HERE,))).local
    assert not make_plan(Policy(route=(THERE,))).local
    assert not make_plan(Policy(operations=OperationsPolicy(listen="0.0.0.0:1"))).local
    assert not make_plan(Policy(operations=OperationsPolicy(otlp="http://10.0.0.1"))).local
    assert make_plan(Policy(gate=GatePolicy(grpc_listen="127.0.0.1:8712"))).local
    assert not make_plan(Policy(gate=GatePolicy(grpc_listen="0.0.0.0:8712"))).local


def test_the_provider_of_operators_is_asked_and_its_files_are_needed() -> None:
    operators = {"issuer": "https://login.example.com/staff", "client_id": "palladion"}
    asked = make_plan(with_operators(Policy(), **operators, ca="tls/staff.pem"))
    assert asked.servers == (Address("login.example.com", 443, secure=True),)
    assert asked.files == ("tls/staff.pem",)
    told = make_plan(with_operators(Policy(), **operators, keys="etc/staff.json"))
    assert (told.servers, told.files) == ((), ("etc/staff.json",))


def test_sockets_are_those_of_the_gate_and_of_operators() -> None:
    of = Policy(gate=GatePolicy(listen="unix:run/gate.sock", socket_group="proxy"))
    of = with_operators(of, socket="run/operators.sock")
    assert make_plan(of).sockets == (
        Socket("gate.listen", "run/gate.sock", "proxy"),
        Socket("operators.socket", "run/operators.sock"),
    )
    assert make_plan(policy()).sockets == ()
    with pytest.raises(PolicyError, match=r"operators\.socket cannot be written"):
        make_plan(with_operators(policy(), socket="run/a\nb"))


def test_what_is_installed_besides_follows_from_the_policy() -> None:
    assert make_plan(policy()).extras == ()
    of = Policy(gate=GatePolicy(grpc_listen="0.0.0.0:1"), operations=OperationsPolicy(otlp="http://10.0.0.1"))
    assert make_plan(of).extras == ("grpc", "otel")


@pytest.mark.parametrize("name", ["a\nb", 'a"b', "a'b", "a$b", "a%b", "a`b", "a\\b", "a\x7f"])
def test_names_that_could_say_something_to_another_program_are_refused(name: str) -> None:
    with pytest.raises(PolicyError, match="cannot be written"):
        plain(name, "it")
    with pytest.raises(PolicyError, match="cannot be written"):
        make_plan(Policy(gate=GatePolicy(tls_certificate=name)))


def test_a_server_without_a_port_that_there_is_is_refused() -> None:
    with pytest.raises(PolicyError, match="no port between"):
        make_plan(Policy(route=(RoutePolicy(model="a", protocol="openai", upstream="http://a:70000"),)))


def test_paths_are_those_that_answer_and_none_is_there_twice() -> None:
    second = RoutePolicy(model="other", protocol="open-inference", upstream="http://a")
    assert prefixes(policy(HERE, second, THERE)) == ["/v1/models/fraud/predict", "/v2"]
    assert prefixes(policy(CHAT))[0] == "/v1/chat/completions"
    assert prefixes(policy(RoutePolicy(model="a", path="/v2/x"), THERE)) == ["/v2"]


def test_files_are_relative_to_the_policy_or_to_the_user() -> None:
    home, user = PurePosixPath("/srv"), PurePosixPath("/home/a")
    assert [str(absolute(home, name, user)) for name in ("a/b", "/c", "~/d")] == ["/srv/a/b", "/c", "/home/a/d"]


def test_programs_for_encrypted_queries_are_let_through_installed_for_and_waited_for() -> None:
    program = EncryptedPolicy(model="scores", program="etc/scores.he", upload_seconds=100, answer_seconds=30)
    plan = make_plan(Policy(route=(HERE,), encrypted=(program,)))
    assert prefixes(plan.policy) == ["/v1/models/fraud/predict", "/v1/encrypted/scores"]
    assert plan.extras == ("he",)
    assert plan.files == ("etc/scores.he",)
    assert plan.request_seconds == 130
    # one process, and as they came and in parts eight of the largest queries, beside keys
    assert plan.encrypted_mib == 4096 + 16 * 64 + 512
    assert make_plan(policy()).encrypted_mib == 0
