"""The corpus: something is found in all that is malicious, broken or odd, and nothing in what frameworks write."""

import gzip
from pathlib import Path

import pytest

from tests.scan.corpus.benign import benign
from tests.scan.corpus.benign_more import benign_more
from tests.scan.corpus.bypasses import bypasses
from tests.scan.corpus.containers import containers
from tests.scan.corpus.gadgets import GADGETS, gadgets
from tests.scan.corpus.malicious import malicious
from tests.scan.corpus.models import models
from tests.scan.corpus.pickles import pickles
from tests.scan.corpus.run import accepted, found, verdicts
from tests.scan.corpus.sample import Sample

SUSPICIOUS_MAX = 60  # of the odd files, those that may be no more than suspicious


@pytest.mark.slow
def test_every_gadget_is_refused_however_it_is_written(tmp_path: Path) -> None:
    assert len(GADGETS) >= 90
    assert [
        sample.name
        for sample in gadgets()
        if all(item.grade != "refused" for verdict in verdicts(sample, tmp_path) for item in verdict.findings)
    ] == []


def test_some_gadgets_are_refused(tmp_path: Path) -> None:
    assert accepted(gadgets()[:30], tmp_path) == []


@pytest.mark.parametrize("sample", pickles(), ids=lambda sample: sample.name)
def test_a_pickle_that_hides_what_it_does_does_not_pass(tmp_path: Path, sample: Sample) -> None:
    assert accepted([sample], tmp_path) == []


@pytest.mark.parametrize("sample", bypasses(), ids=lambda sample: sample.name)
def test_what_passed_once_does_not_pass_again(tmp_path: Path, sample: Sample) -> None:
    assert accepted([sample], tmp_path) == []


@pytest.mark.slow
def test_no_odd_archive_passes(tmp_path: Path) -> None:
    assert accepted(containers(), tmp_path) == []


@pytest.mark.slow
def test_no_odd_model_or_configuration_passes(tmp_path: Path) -> None:
    assert accepted(models(), tmp_path) == []


@pytest.mark.slow
def test_most_is_refused_and_not_merely_suspicious(tmp_path: Path) -> None:
    odd = malicious()
    assert len(odd) >= 200
    merely = [
        sample.name
        for sample in odd
        if sample.family not in {"gadget", "hidden"}
        and all(item.grade == "suspicious" for verdict in verdicts(sample, tmp_path) for item in verdict.findings)
    ]
    assert len(merely) <= SUSPICIOUS_MAX, merely


@pytest.mark.slow
@pytest.mark.torch
def test_nothing_is_found_in_what_frameworks_write(tmp_path: Path) -> None:
    sound = benign()
    assert len(sound) >= 60
    assert found(sound, tmp_path) == {}


@pytest.mark.slow
@pytest.mark.torch
def test_nothing_is_found_in_what_was_taken_for_something_else(tmp_path: Path) -> None:
    sound = benign_more()
    assert len(sound) >= 30
    assert found(sound, tmp_path) == {}


@pytest.mark.slow
def test_the_verdict_does_not_depend_on_the_name(tmp_path: Path) -> None:
    for index, sample in enumerate([*pickles(), *gadgets()[::40]]):
        renamed = Sample(f"{index}.safetensors", sample.data)
        assert accepted([renamed], tmp_path) == [], sample.name


@pytest.mark.slow
def test_compression_hides_nothing(tmp_path: Path) -> None:
    packed = [Sample(f"{sample.name}.gz", gzip.compress(sample.data)) for sample in pickles()]
    assert accepted(packed, tmp_path) == []
