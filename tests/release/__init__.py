"""The release channel. Its package cannot be imported without python-tuf, and so neither can these tests."""

import pytest

pytest.importorskip("tuf", reason="a release channel needs the release extra: pip install 'palladion[release]'")
