"""A live table of who asks the gate and how each stands; on a terminal it moves, elsewhere every change is a line."""

import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from palladion.clock import SystemClock
from palladion.errors import PalladionError
from palladion.lifecycle.installation import Installation

POLL_SECONDS = 0.2
COLUMNS = ("client", "standing", "queries", "p of its own", "p of its group", "linked", "why")


class LiveTable:
    """Follows the gate of an installation for the length of a block."""

    def __init__(self, home: Path) -> None:
        self._installation = Installation.find(home, SystemClock())
        self._standings: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="live-table")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        if not sys.stdout.isatty():
            while not self._stop.wait(POLL_SECONDS):
                self._tell(self._clients())
            self._tell(self._clients())
            return
        from rich.live import Live

        with Live(refresh_per_second=8) as live:
            while not self._stop.wait(POLL_SECONDS):
                live.update(_table(self._clients()))
            live.update(_table(self._clients()), refresh=True)

    def _clients(self) -> list[dict[str, Any]]:
        try:
            status = self._installation.server_status()
        except PalladionError:
            return []  # busy: the next look comes in a moment
        return [item for item in (status or {"clients": []})["clients"] if item["models"]]

    def _tell(self, clients: list[dict[str, Any]]) -> None:
        for item in clients:
            before = self._standings.get(item["client"], "trusted")
            if item["standing"] != before:
                self._standings[item["client"]] = item["standing"]
                model = item["models"][0]
                click.echo(
                    f"   {_name(item):<18} {before} → {item['standing']} after {model['queries']} queries, "
                    f"p = {min(model['p_value'], model['campaign_p_value']):.2g}"
                )


def _table(clients: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 3), header_style="bold")
    for column in COLUMNS:
        table.add_column(column)
    colours = {
        "trusted": "green",
        "watched": "yellow",
        "throttled": "magenta",
        "degraded": "red",
        "suspended": "bold red",
    }
    for item in clients:
        model = item["models"][0]
        table.add_row(
            _name(item),
            f"[{colours[item['standing']]}]{item['standing']}[/]",
            str(model["queries"]),
            f"{model['p_value']:.2g}",
            f"{model['campaign_p_value']:.2g}",
            str(model["linked"]),
            model["reasons"][0].partition(":")[0] if model["reasons"] else "",
        )
    return table


def _name(item: dict[str, Any]) -> str:
    return str(item["client"]).partition("/")[2]
