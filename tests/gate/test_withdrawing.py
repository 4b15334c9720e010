"""What goes on being served when the key of one file is lost."""

from dataclasses import replace

from palladion.gate.withdrawing import without_file

from .gates import House, open_gate


def test_a_route_whose_file_is_lost_waits_and_others_go_on(house: House) -> None:
    served = dict(open_gate(house).gate.served)
    ((name, item),) = served.items()
    assert item.sealed is not None
    lost = item.sealed.header.file_id

    left, waiting = without_file(served, lost)
    assert (left, list(waiting), waiting[name].paths) == ({}, [name], item.protocol.paths)
    assert without_file(served, "00" * 16) == (served, {})


def test_a_route_behind_an_upstream_has_no_file_to_lose(house: House) -> None:
    served = {name: replace(item, sealed=None) for name, item in open_gate(house).gate.served.items()}

    assert without_file(served, "00" * 16) == (served, {})
