"""Out of the path: the real server answers, a real gate judges copies, or logs, and is missed by nobody when gone."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from palladion.ledger.record import decode_record
from palladion.policy import RoutePolicy
from tests.redteam.recordings import WATCHING, calibrate_house, traffic

from .deploy.proxies import ask, free_port, real_server, running, watched
from .gates import MODEL, House
from .service import configure, serving, wait_until

pytestmark = [pytest.mark.service, pytest.mark.slow]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def nginx() -> str:
    """The real nginx, or skip."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        pytest.skip("this needs nginx")
    return found


def nginx_config(folder: Path, port: int, server: int, gate: int, *, logged: bool = False) -> Path:
    """The locations of the page, in as little as nginx needs around them."""
    snippet = PAGE.partition("<!-- begin nginx -->\n```nginx\n")[2].partition("```\n<!-- end nginx -->")[0]
    assert snippet
    locations = snippet.replace("10.0.0.5:8000", f"127.0.0.1:{server}").replace("10.0.0.1:8710", f"127.0.0.1:{gate}")
    log = "access_log off;"
    if logged:
        log_format = re.search(r"log_format palladion .*;", _traffic_page())
        assert log_format is not None
        fields = log_format[0].replace("$jwt_sub", "$http_x_user")
        log = f"{fields} access_log {folder}/access.jsonl palladion; client_body_in_single_buffer on;"
    temporary = " ".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ {temporary} {log}\nserver {{ listen 127.0.0.1:{port};\n{locations} }} }}\n"
    )
    return file


def _traffic_page() -> str:
    return (Path(__file__).resolve().parents[2] / "docs" / "traffic.md").read_text(encoding="utf-8")


def _kinds(house: House) -> list[str]:
    return [decode_record(data, what="it").kind for _, data in house.installation.read_ledger().entries()]


def test_behind_nginx_a_gate_judges_copies_until_it_is_gone(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    configure(mine, RoutePolicy(model=MODEL), gate={"behind_proxy": True})
    with serving(mine) as service, real_server() as server:
        port, key = free_port(), {"x-api-key": mine.keys["acme"]}
        config = nginx_config(tmp_path, port, server.port, service.port)
        with running([nginx(), "-c", str(config)], port):
            assert ask(port, None, key).body == server.ANSWER
            wait_until(lambda: watched(service) == 1)
            assert ask(port, None, {"x-api-key": "somebody-elses"}).body == server.ANSWER
            assert service.terminate() == 0
            assert ask(port, None, key).body == server.ANSWER
            assert server.asked == 3
    assert "answer.given" in _kinds(mine)


def test_a_log_of_nginx_feeds_the_watch_while_a_gate_runs(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    calibrate_house(mine)
    configure(mine, RoutePolicy(model=MODEL), watch=WATCHING)
    log = tmp_path / "access.jsonl"
    with serving(mine) as service, real_server() as server:
        port = free_port()
        # copies go nowhere: the log alone tells
        with running([nginx(), "-c", str(nginx_config(tmp_path, port, server.port, 9, logged=True))], port):
            for line in traffic():
                ask(port, None, {"x-user": f"{line.client}/{line.client}"}, rows=line.inputs)
        places = ["--time-path", "$.ts", "--client-path", "$.user", "--inputs-path", "$.request_body.inputs"]
        command = [sys.executable, "-m", "palladion", "--home", str(mine.installation.paths.home), "watch", "feed"]
        feed = subprocess.Popen(
            [*command, str(log), "--model", MODEL, "--follow", "--json", *places], stdout=subprocess.PIPE, text=True
        )
        assert feed.stdout is not None
        try:
            first = json.loads(feed.stdout.readline())
            assert first["client"] == "globex/globex"
            wait_until(lambda: "standing.proposed" in _kinds(mine))
            feed.send_signal(signal.SIGTERM)
            assert feed.wait(60) == 0
        finally:
            feed.kill()
            feed.communicate()
        # the gate has watched nobody, and nobody stands otherwise
        assert watched(service) == 0
        status = mine.installation.server_status()
        assert status is not None
        assert {item["standing"] for item in status["clients"]} == {"trusted"}
