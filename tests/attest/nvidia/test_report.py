"""A GPU's report: other forms than the published one's are refused before anything is verified."""

import pytest

from palladion.attest.nvidia.report import REPORT_BYTES_MAX, parse_report
from tests.attest.nvidia.synthetic import FWID, GpuReport, nvidia_lab
from tests.attest.refusals import VECTORS, refused

FOLDER = VECTORS / "nvidia"


REPORT = (FOLDER / "gpu_report.dat").read_bytes()


@pytest.mark.parametrize("size", [0, 36, 45, 46, 1000, len(REPORT) - 97, len(REPORT) - 1])
def test_a_report_that_is_cut_off_is_refused(size: int) -> None:
    with refused("malformed"):
        parse_report(REPORT[:size])


def _fields(**changes: bytes) -> tuple[tuple[int, bytes], ...]:
    kinds = {"driver": 3, "vbios": 6, "fwid": 20}
    changed = {kinds[name]: value for name, value in changes.items()}
    return tuple((kind, changed.get(kind, value)) for kind, value in GpuReport().fields)


@pytest.mark.parametrize(
    "report",
    [
        GpuReport(head=b"\x12\xe0\x01\xff"),
        GpuReport(head=b"\x11\xe1\x01\xff"),
        GpuReport(head=b"\x11\xe0\x00\xff"),
        GpuReport(head=b"\x11\xe0\x01\x05"),
        GpuReport(answer=b"\x12\x60\x00\x00"),
        GpuReport(answer=b"\x11\x7f\x00\x00"),
        GpuReport(values={}),
        GpuReport(values={0: bytes(48)}),
        GpuReport(values={65: bytes(48)}),
        GpuReport(values={1: bytes(47)}),
        GpuReport(fields=((3, b"550\0"), (3, b"550\0"), (6, bytes(8)))),
        GpuReport(fields=tuple((kind, b"") for kind in range(1000, 1065))),
        GpuReport(fields=((3, b"550"),)),
        GpuReport(fields=((6, bytes(8)),)),
        GpuReport(fields=_fields(driver=b"")),
        GpuReport(fields=_fields(driver=b"5\x1b[2J")),
        GpuReport(fields=_fields(driver=b"5" * 33)),
        GpuReport(fields=_fields(vbios=bytes(7))),
        GpuReport(fields=_fields(fwid=FWID[:20])),
        GpuReport(fields=((3, b"550"), (6, bytes(8)), (999, bytes(4090)))),
        GpuReport(fields=((3, b"550"), (6, bytes(8)), (999, bytes(REPORT_BYTES_MAX)))),
    ],
    ids=repr,
)
def test_reports_of_other_forms_are_refused(report: GpuReport) -> None:
    with refused("malformed"):
        parse_report(nvidia_lab().sign(report.build()))


def test_a_report_that_miscounts_its_measurements_is_refused() -> None:
    data = bytearray(REPORT)
    data[41] -= 1
    with refused("malformed", match="64 measurements and says 63"):
        parse_report(bytes(data))
