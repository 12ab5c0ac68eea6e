"""Authorities of a test's own, and certificates of theirs as files."""

from __future__ import annotations

import datetime
from pathlib import Path

import trustme

from truba.tls import Contexts, Tls

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


class Authority:
    """Writes what it issues under `directory`."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        self.name = name
        self._ca = trustme.CA()
        self.pem = directory / f"{name}.pem"
        self._ca.cert_pem.write_to_path(self.pem)

    def issue(self, name: str, *hosts: str, expired: bool = False, file: str = "") -> Tls:
        """A certificate with this common name, for these hosts; `ca` is this authority. `file`: what it is called."""
        until = LONG_AGO if expired else None
        issued = self._ca.issue_cert(*(hosts or (name,)), common_name=name, not_after=until)
        stem = self.directory / f"{self.name}-{file or name}"
        certificate, key = stem.with_suffix(".crt"), stem.with_suffix(".key")
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return Tls(ca=self.pem, certificate=certificate, key=key)

    @property
    def believed(self) -> Tls:
        return Tls(ca=self.pem)


def without_ca(tls: Tls) -> Tls:
    """A server that asks for no certificate."""
    return Tls(certificate=tls.certificate, key=tls.key)


def server(tls: Tls) -> Contexts:
    return Contexts(tls, server_side=True)


def client(tls: Tls) -> Contexts:
    return Contexts(tls, server_side=False)
