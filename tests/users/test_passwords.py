"""Hashes of passwords: what is stored, what matches, and what nobody can be made to pay for."""

from __future__ import annotations

import hashlib

import pytest

from truba.passwords import PasswordHash, make, parse

SALT = bytes(range(16))


@pytest.mark.parametrize("slow", [True, False])
def test_there_and_back(slow: bool) -> None:
    made = make("пароль".encode(), SALT, slow=slow)
    assert parse(str(made)) == made
    assert made.matches("пароль".encode())
    for wrong in (b"", b"x", "пароль ".encode(), "Пароль".encode()):
        assert not made.matches(wrong)
    assert str(make("пароль".encode(), SALT[:-1] + b"x", slow=slow)) != str(made)


def test_scrypt_is_the_one_of_the_standard() -> None:
    text = str(make(b"hush", SALT))
    assert text.startswith("scrypt$ln=15,r=8,p=3$AAECAwQFBgcICQoLDA0ODw$")
    expected = hashlib.scrypt(b"hush", salt=SALT, n=1 << 15, r=8, p=3, maxmem=1 << 27, dklen=32)
    assert make(b"hush", SALT).digest == expected
    vector = PasswordHash((14, 8, 1), b"SodiumChloride", bytes.fromhex(
        "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
    ))  # fmt: skip  # RFC 7914, the first 32 bytes of what it gives for 64
    assert vector.matches(b"pleaseletmein")


@pytest.mark.parametrize(
    "text",
    [
        "", "hush", "scrypt$", "sha256$", "sha256$x", "md5$AAAA$AAAA", "sha256$AAAA$AAAA$AAAA", "sha256$A$AAAA",
        "scrypt$ln=15,r=8,p=3$AAAA", "scrypt$ln=30,r=8,p=1$AAAA$AAAA", "scrypt$ln=15,r=99,p=1$AAAA$AAAA",
        "scrypt$ln=15,r=8,p=99$AAAA$AAAA", "scrypt$ln=0,r=8,p=1$AAAA$AAAA", "scrypt$ln=15,r=0,p=1$AAAA$AAAA",
        "scrypt$ln=15,r=8,p=0$AAAA$AAAA", "scrypt$ln=٣,r=8,p=1$AAAA$AAAA", " sha256$AAAA$AAAA",
    ],
)  # fmt: skip
def test_nonsense_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert not text or text not in str(caught.value)


def test_it_does_not_show_itself() -> None:
    made = make(b"hush", SALT, slow=False)
    assert str(made) not in repr(made)
    assert "sha256" not in repr(made)
