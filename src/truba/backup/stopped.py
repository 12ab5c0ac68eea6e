"""A backup of a data directory that no pipe has open."""

from __future__ import annotations

from pathlib import Path

from truba.backup.files import looked_at
from truba.backup.make import Order, Tell, make
from truba.backup.manifest import Manifest, Place
from truba.errors import DataDamaged, DataForeign
from truba.install import settle
from truba.log import inspect
from truba.log.damage import LogDamaged
from truba.log.directory import Directory
from truba.log.disk import OsDisk


def back_up(data: Path, target: Path, tell: Tell) -> Manifest:
    """Durable when it returns. A torn tail of the log is left out, as a start would; nothing in `data` is changed,
    but that an installation which was decided is brought to its end.

    DataLocked: a pipe has it open. FileNotFoundError: it is not there. DataForeign: it holds no pipe. DataDamaged, and
    what `make` raises.
    """
    if not data.is_dir():
        raise FileNotFoundError(2, "No such directory", str(data))
    settle(data)
    if not (any((data / "log").glob("segment-*.log")) and (data / "store" / "CURRENT").exists()):
        raise DataForeign(f"{data} holds no log and store of a pipe: name its data directory")
    lock = Directory.create(data / "log", OsDisk())  # a pipe takes it before it touches the store
    try:
        report = inspect.verify(data / "log")
        if report.damage is not None:
            raise LogDamaged(report.damage, data / "log")
        with looked_at(data / "store") as store:
            held = store.summary.applied
        if held.seq > report.tail.seq:
            raise DataDamaged(
                f"the store of {data} holds the state of event {held.term}-{held.seq}, and the log ends with"
                f" {report.tail.term}-{report.tail.seq}: they are not of one piece"
            )
        order = Order(
            data=str(data.absolute()),
            store=str(data / "store"),
            log=str(data / "log"),
            after=Place.of(held),
            through=Place.of(report.tail),
            target=str(target),
        )
        return make(order, tell)
    finally:
        lock.close()
