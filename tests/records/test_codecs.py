"""Each shipped codec: what goes in comes out, what could not come out is refused, and what is shown says nothing."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import truba
from truba.errors import BadRecord, ConfigError
from truba.ports.records import Codec
from truba.records import Bytes, Json, Models, Structs


class Debited(msgspec.Struct, tag=True):
    account: str
    amount: int


class Credited(msgspec.Struct, tag=True):
    account: str
    amount: int


class Sent(pydantic.BaseModel):
    type: Literal["sent"] = "sent"
    to: str


class Read(pydantic.BaseModel):
    type: Literal["read"] = "read"
    to: str


class Vague(pydantic.BaseModel):
    to: str


class Vaguer(pydantic.BaseModel):
    to: str


@dataclass
class Stranger:
    account: str = "A"


STRUCTS: Codec[Debited | Credited] = Structs(Debited, Credited)
MODELS: Codec[Sent | Read] = Models(Sent, Read)


@pytest.mark.parametrize(
    ("codec", "record"),
    [
        (Bytes(), b"\0\xff"),
        (Json(), {"a": [1, 2.5, None, True, "ü"]}),
        (STRUCTS, Debited("A", 5)),
        (STRUCTS, Credited("A", 5)),
        (Structs(Debited), Debited("A", 5)),
        (MODELS, Sent(to="B")),
        (MODELS, Read(to="B")),
    ],
)
def test_what_goes_in_comes_out(codec: Codec[Any], record: object) -> None:
    back = codec.decode(codec.encode(record))
    assert (type(back), back) == (type(record), record)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_json_comes_out_as_it_went_in_or_is_refused(record: object) -> None:
    codec = Json()
    try:
        data = codec.encode(record)
    except BadRecord:
        return
    assert codec.decode(data) == record


@pytest.mark.parametrize(
    ("codec", "record"),
    [
        (Bytes(), "text"),
        (Json(), (1, 2)),
        (Json(), {1: "a"}),
        (Json(), math.nan),
        (Json(), b"bytes"),
        (Json(), Stranger()),
        (Json(), object()),
        (STRUCTS, Stranger()),
        (STRUCTS, b"bytes"),
        (STRUCTS, Debited("A", "five")),  # type: ignore[arg-type] # msgspec does not look at what it is given
        (Structs(Debited), Credited("A", 5)),
        (MODELS, Vague(to="B")),
        (MODELS, Sent.model_construct(to=3)),
        (Models(Vague, Vaguer), Vaguer(to="B")),
    ],
)
def test_what_would_not_come_out_is_refused(codec: Codec[Any], record: object) -> None:
    with pytest.raises(BadRecord, match="nothing was stored"):
        codec.encode(record)


@pytest.mark.parametrize("codec", [Json(), STRUCTS, MODELS])
@pytest.mark.parametrize("data", [b"", b"\xff\0", b"{", b'{"type":"Gone","account":"A"}', b"a secret"])
def test_bytes_that_are_no_record_are_refused_and_can_be_shown(codec: Codec[Any], data: bytes) -> None:
    if isinstance(codec, Json) and data.startswith(b'{"'):
        return
    with pytest.raises(BadRecord, match=f"{len(data)} bytes are no record of"):
        codec.decode(data)
    assert "secret" not in codec.shown(data)


def test_what_is_shown_is_the_type_unless_the_maker_of_the_codec_says_more() -> None:
    assert Bytes().shown(b"a secret") == "8 bytes"
    assert Json().shown(b'{"secret": 1}') == "dict"
    assert STRUCTS.shown(STRUCTS.encode(Debited("secret", 5))) == "Debited"
    assert MODELS.shown(MODELS.encode(Read(to="secret"))) == "Read"
    telling: Codec[Debited] = Structs(Debited, show=lambda record: f"debited {record.amount}")
    assert telling.shown(telling.encode(Debited("secret", 5))) == "debited 5"
    broken: Codec[Debited] = Structs(Debited, show=lambda record: str(1 // 0))
    assert "bytes that are no record" in broken.shown(broken.encode(Debited("secret", 5)))


def test_a_later_version_reads_what_an_earlier_one_wrote() -> None:
    class Paid(msgspec.Struct):
        amount: int

    early = Structs(Paid).encode(Paid(5))

    class Paid2(msgspec.Struct):
        amount: int
        currency: str = "EUR"

    assert Structs(Paid2).decode(early) == Paid2(5, "EUR")
    assert Structs(Paid).decode(Structs(Paid2).encode(Paid2(6))) == Paid(6)


def test_types_that_cannot_be_told_apart_are_refused() -> None:
    class One(msgspec.Struct):
        pass

    class Two(msgspec.Struct):
        pass

    with pytest.raises(ConfigError, match="tag=True"):
        Structs(One, Two)
    for make in (Structs, Models):
        with pytest.raises(ConfigError, match="at least one type"):
            make()


def test_pydantic_is_imported_by_those_who_use_it() -> None:
    code = "import sys, truba, truba.records, truba.typed; truba.records.Json(); assert 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert truba.BadRecord is BadRecord
