"""The report as PDF/A, with the JSON in it."""

import io
import sys

import pytest

from palladion.errors import MissingExtraError
from palladion.redteam.audit.document import encode_document
from palladion.redteam.audit.pdf import to_pdf
from tests.redteam.audit.test_cyclonedx import _full as full


@pytest.mark.slow
def test_it_is_pdf_a_with_the_report_attached_and_the_same_each_time() -> None:
    pytest.importorskip("typst", reason="typst is not installed (extra: dossier)")
    reader = pytest.importorskip("pyhanko.pdf_utils.reader")
    data = encode_document(full(name='<fraud> #eval "x" \u202e 模型 $x$ *b* _c_'))
    made = to_pdf(data)
    assert made == to_pdf(data)
    pdf = reader.PdfFileReader(io.BytesIO(made))
    files = pdf.root["/Names"]["/EmbeddedFiles"]
    names = (files["/Kids"][0] if "/Kids" in files else files)["/Names"]
    assert names[0] == "report.json"
    assert names[1]["/EF"]["/F"].data == data


def test_without_typst_the_error_names_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(MissingExtraError) as error:
        to_pdf(b"{}")
    assert "palladion[dossier]" in error.value.hints[0]
