"""Each shipped codec: what goes in comes out, what could not come out is refused, and what is shown says nothing."""

from __future__ import annotations

import math
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import truba
from truba.errors import BadRecord, ConfigError
from truba.ports import records as ports
from truba.ports.records import Codec, Shown
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
    assert list(Shown(codec, [data])) == [f"{len(data)} bytes, not readable by the codec"]


def test_what_pydantic_refuses_is_told_without_what_it_holds() -> None:
    data = msgspec.json.encode({"to": ["sec" + "ret"]})  # a traceback quotes this file too
    with pytest.raises(BadRecord, match="to: Input should be a valid string") as refused:
        Models(Vague).decode(data)
    assert "secret" not in "".join(traceback.format_exception(refused.value))


def test_what_is_shown_is_the_type_unless_the_maker_of_the_codec_says_more() -> None:
    assert Bytes().shown(b"a secret") == "8 bytes"
    assert Json().shown(b'{"secret": 1}') == "dict"
    assert STRUCTS.shown(STRUCTS.encode(Debited("secret", 5))) == "Debited"
    assert MODELS.shown(MODELS.encode(Read(to="secret"))) == "Read"
    telling: Codec[Debited] = Structs(Debited, show=lambda record: f"debited {record.amount}")
    assert telling.shown(telling.encode(Debited("secret", 5))) == "debited 5"
    whole: Codec[Debited] = Structs(Debited, show=repr)
    assert whole.shown(whole.encode(Debited("A", 5))) == "Debited(account='A', amount=5)"


class Sealed(pydantic.BaseModel, extra="allow"):
    to: str
    pin: pydantic.SecretStr = pydantic.SecretStr("secret")


@pytest.mark.parametrize(
    ("codec", "data", "text"),
    [
        (Structs(Debited, Credited, show=["amount"]), b'{"type":"Debited","account":"secret","amount":5}',
         "Debited(amount=5, …)"),
        (Structs(Debited, show=["amount", "account"]), b'{"type":"Debited","account":"A","amount":5}',
         "Debited(account='A', amount=5)"),
        (Structs(Debited, show=[]), b'{"type":"Debited","account":"secret","amount":5}', "Debited(…)"),
        (Models(Sent, Read, show=["type"]), b'{"type":"read","to":"secret"}', "Read(type='read', …)"),
        (Models(Sealed, show=["to", "pin"]), b'{"to":"B","secret":"secret"}',
         "Sealed(to='B', pin=SecretStr('**********'), …)"),
        (Json(show=["step", "of"]), b'{"secret":1,"step":"debit","of":{"a":[1]}}',
         "dict(step='debit', of={'a': [1]}, …)"),
        (Json(show=["step"]), b'{"step":"debit"}', "dict(step='debit')"),
        (Json(show=["step"]), b'["secret"]', "list"),
    ],
)  # fmt: skip
def test_fields_that_are_named_are_shown_and_no_others(codec: Codec[Any], data: bytes, text: str) -> None:
    assert codec.shown(data) == text


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Structs(Debited, Credited, show=["amout"]), "has no field 'amout' to show; there are account, amount"),
        (lambda: Models(Sent, show=["amount"]), "has no field 'amount' to show; there are type, to"),
        (lambda: Json(show="step"), "a list of names of fields: \\['step'\\]"),
    ],
)
def test_a_show_that_would_not_do_what_it_says_is_refused(make: Callable[[], object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        make()


class Rude:
    """A codec whose `shown` does what the test says."""

    def __init__(self, act: Callable[[bytes], Any]) -> None:
        self.act = act

    def encode(self, record: bytes) -> bytes:
        return record

    def decode(self, data: bytes) -> bytes:
        return data

    def shown(self, data: bytes) -> str:
        text: str = self.act(data)
        return text


def exits(data: bytes) -> str:
    raise SystemExit(data)


@pytest.mark.parametrize(
    ("act", "text", "failure"),
    [
        (lambda data: str({}[data]), "6 bytes, the codec failed to show them: KeyError", KeyError),
        (lambda data: data, "6 bytes, the codec failed to show them: TypeError", TypeError),
        (exits, "6 bytes, the codec failed to show them: SystemExit", SystemExit),
        (lambda data: "a\ud800b", "a?b", None),
        (lambda data: "x" * 5000, "x" * 4096 + " ... 904 characters more", None),
    ],
)
def test_whatever_a_codec_does_there_is_a_text_and_no_contents(
    act: Callable[[bytes], Any], text: str, failure: type[BaseException] | None
) -> None:
    failures: list[BaseException] = []
    assert list(Shown(Rude(act), [b"secret"], failures.append)) == [text]
    assert [*map(type, failures)] == ([] if failure is None else [failure])
    assert repr(Shown(Rude(act), [b"secret"])) == f"[{text}]"


def test_a_large_record_is_not_decoded_to_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "SHOWN_BYTES_MAX", 5)
    assert list(Shown(Rude(exits), [b"secret"])) == ["6 bytes, too many to be shown by the codec"]
    assert list(Shown(Bytes(), [b"small"])) == ["5 bytes"]


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
