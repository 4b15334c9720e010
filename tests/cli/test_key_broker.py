"""`palladion key-broker`, as its operator types it, and a host that asks it."""

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from palladion.cli.main import main
from palladion.errors import NotFoundError
from palladion.host.broker import brokered
from palladion.host.broker_messages import BrokerRefusedError
from palladion.seal.opening import begin
from tests.broker.parts import Setting
from tests.broker.serving import Served, built

pytestmark = [pytest.mark.slow, pytest.mark.service]
WAIT_SECONDS_MAX = 60.0


@contextmanager
def _broker(setting: Setting) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A broker in a process of its own, and its address."""
    home = setting.installation.paths.home
    process = subprocess.Popen(
        [sys.executable, "-m", "palladion", "--home", str(home), "key-broker", "serve"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    try:
        line = lines.get(timeout=WAIT_SECONDS_MAX)
        assert line.startswith("broker on "), process.communicate()[1]
        yield process, line.removeprefix("broker on ").strip()
    finally:
        process.kill()
        process.wait()


def test_a_broker_lends_a_key_shows_the_lease_and_ends_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    setting, parties = built(tmp_path)
    home = ["--home", str(setting.installation.paths.home)]
    with _broker(setting) as (process, url):
        client = Served(setting, parties, url).client()
        with brokered(setting.file, client, purpose="exec") as identity:
            begin(setting.file, [identity], setting.installation.publishers()).close()
        assert identity.lease is not None
        assert main([*home, "key-broker", "leases", "--json"]) == 0
        (shown,) = json.loads(capfd.readouterr().out)
        assert (shown["id"], shown["name"], shown["recipient"]) == (identity.lease.id, "acme/web", "lab")
        assert main([*home, "key-broker", "leases"]) == 0
        assert "fraud@1 (copy of lab)  acme/web  for exec  until " in capfd.readouterr().out
        assert client.renew(identity.lease).id == identity.lease.id
        assert main([*home, "key-broker", "end", identity.lease.id]) == 0
        with pytest.raises(BrokerRefusedError, match="unknown"):
            client.renew(identity.lease)
        process.terminate()
        assert process.wait(WAIT_SECONDS_MAX) == 0
    kinds = [f"broker.{what}" for what in ("started", "released", "renewed", "ended", "refused", "stopped")]
    assert [record.kind for record in setting.records(*kinds)] == kinds


def test_nobody_looks_into_a_broker(tmp_path: Path) -> None:
    setting, _ = built(tmp_path)
    with _broker(setting) as (process, _url):
        # what cannot be dumped belongs to root in /proc, whoever runs it
        assert Path(f"/proc/{process.pid}/mem").stat().st_uid == 0
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert limits.partition("Max core file size")[2].split()[0] in {"0", "1"}


def test_what_is_missing_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    setting, _ = built(tmp_path)
    path = setting.installation.paths.policy
    text, home = path.read_text(), ["--home", str(setting.installation.paths.home)]
    for old, said in (
        ('identities = ["lab.identity"]', "broker.identities is empty"),
        ('policies = "broker.cedar"', "broker.policies is empty"),
        ('[[broker.release]]\nmodel = "fraud"\n', "has no [[broker.release]]"),
    ):
        assert old in text
        path.write_text(text.replace(old, f"# {old}".replace("\n", "\n# ", 1).removesuffix("# "), 1))
        assert main([*home, "key-broker", "serve"]) == 2, old
        assert said in capfd.readouterr().err
    assert main([*home, "key-broker", "end", "ab" * 16]) == NotFoundError("").exit_code
