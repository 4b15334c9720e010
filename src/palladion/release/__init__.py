"""The release channel: which sealed file of a model is the current one, and which are revoked (docs/release.md).

TUF metadata in a plain folder. `channel` is the publisher's side, `subscriber` that of a host; both need python-tuf.
"""

from importlib.util import find_spec

from palladion.errors import MissingExtraError

# here, because the modules of this package extend classes of python-tuf and so cannot import it later
if find_spec("tuf") is None:
    raise MissingExtraError("a release channel needs python-tuf", "pip install 'palladion[release]'")
