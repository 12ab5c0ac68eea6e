"""Certificates in files: new ones come into force by themselves, broken ones do not."""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.tls.certificates import Authority, without_ca
from truba.errors import ConfigError
from truba.tls import Contexts, Tls
from truba.tls.files import make_context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def shaken(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """Hands shaken in memory; the number of the server's certificate."""
    ends = [ssl.MemoryBIO() for _ in range(2)]
    one = server.wrap_bio(ends[0], ends[1], server_side=True)
    two = client.wrap_bio(ends[1], ends[0], server_hostname="127.0.0.1")
    for _ in range(3):
        for side in (two, one):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return str((two.getpeercert() or {})["serialNumber"])


def test_what_is_written_anew_is_in_force_from_then_on(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = without_ca(authority.issue("127.0.0.1"))
    contexts = Contexts(tls, server_side=True)
    client = make_context(authority.believed, server_side=False)
    first = shaken(contexts.current(), client)
    assert contexts.current() is contexts.current()
    assert shaken(contexts.current(), client) == first

    assert tls.key is not None
    good = Path(tls.key).read_bytes()
    fresh = Authority(tmp_path, "fresh").issue("127.0.0.1")
    assert fresh.key is not None
    Path(tls.key).write_bytes(Path(fresh.key).read_bytes())  # half of a new pair
    with caplog.at_level(logging.INFO, "truba.tls"):
        before = contexts.current()
        assert contexts.current() is before
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "cannot be used; those before stay in force" in caplog.text
    assert "PRIVATE" not in caplog.text
    assert shaken(before, client) == first

    Path(tls.key).unlink()
    assert contexts.current() is before
    Path(tls.key).write_bytes(good)
    os.utime(tls.key, ns=(1, 1))  # whatever the grain of the file system's clock
    authority.issue("127.0.0.1")
    assert shaken(contexts.current(), client) != first


def test_a_link_that_points_elsewhere_is_noticed(authority: Authority, tmp_path: Path) -> None:
    """As Kubernetes changes the files of a secret."""
    one, two = (authority.issue("127.0.0.1", file=file) for file in ("one", "two"))
    link = tmp_path / "link"
    both = tmp_path / "both"
    for tls, target in ((one, "1"), (two, "2")):
        assert tls.certificate is not None
        assert tls.key is not None
        (tmp_path / target).write_bytes(Path(tls.certificate).read_bytes() + Path(tls.key).read_bytes())
    link.symlink_to("1")
    both.symlink_to("link")
    contexts = Contexts(Tls(certificate=both), server_side=True)
    before = contexts.current()
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").rename(link)
    assert contexts.current() is not before


@pytest.mark.parametrize(
    ("tls", "server_side", "message"),
    [
        (Tls(), True, "a server needs a certificate of its own"),
        (Tls(key="k"), False, "k is a key without a certificate"),
        (Tls(ca="nowhere"), False, "nowhere: no certificates of an authority: No such file"),
        (Tls(certificate="nowhere"), True, "nowhere: no certificate with its key: No such file"),
    ],
)
def test_what_cannot_be_used(tls: Tls, server_side: bool, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Contexts(tls, server_side=server_side)


def test_files_that_hold_something_else(authority: Authority, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(b"\xff\x00 no PEM")
    one, two = authority.issue("a"), authority.issue("b")
    for tls in (Tls(ca=noise), Tls(certificate=noise), Tls(certificate=one.certificate, key=two.key)):
        with pytest.raises(ConfigError, match=r"no certificates? "):
            make_context(tls, server_side=False)


def test_an_encrypted_key_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=x",
         "-keyout", key, "-out", certificate, "-passout", "pass:hush"],
        check=True, capture_output=True,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="the key is encrypted"):
        make_context(Tls(certificate=certificate, key=key), server_side=True)
