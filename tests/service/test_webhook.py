"""A pipe as a process that posts: killed between POST and answer, keys changed, secrets and records in no log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.service.process import Server, Servers, kind
from tests.service.receiver import Receiver, receiving
from truba.webhook import Unfinished, verify

OLD, NEW = ("whsec_" + letter * 43 + "=" for letter in "AB")
MARK = b"marked record"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def table(receiver: Receiver, **settings: object) -> str:
    return kind(handler=receiver.url, webhook={"secret_file": "whsec"}, **settings)


def store(server: Server) -> None:
    with redis.Redis(*server.address) as client:
        client.execute_command("STORE", client.execute_command("NEW", 7, MARK), 0)


def taken(receiver: Receiver, *secrets: str) -> Unfinished:
    post = receiver.next()
    found = verify(post.headers, post.body, secrets)
    assert isinstance(found, Unfinished)
    assert post.headers["webhook-id"] == f"{found.session}@{found.epoch}"
    return found


def test_killed_between_post_and_answer(pipes: Servers, receiver: Receiver) -> None:
    (pipes.directory / "whsec").write_text(OLD)
    server = pipes.start(table(receiver))
    store(server)
    first = taken(receiver, OLD)
    server.kill()
    receiver.answers.put((200, b'{"replace": "bGF0ZQ==", "store": 0}'))  # to nobody
    server = pipes.start_again(server.config)
    second = taken(receiver, OLD)
    assert (second.session, second.epoch, second.cause) == (first.session, first.epoch + 1, "restart")
    assert second.records == first.records == [MARK]
    receiver.answers.put((200, b'{"append": ["bW9yZQ=="], "store": 0}'))
    third = taken(receiver, OLD)
    assert (third.epoch, third.records) == (3, [MARK, b"more"])
    receiver.answers.put((204, b""))
    with redis.Redis(*server.address) as client:
        while client.execute_command("LS")[1]:
            pass
    assert server.terminate() == 0


def test_killed_again_and_again_no_id_is_used_twice_and_all_are_finished(pipes: Servers, receiver: Receiver) -> None:
    """Answers are under way, and not durable, whenever the pipe dies."""
    (pipes.directory / "whsec").write_text(OLD)
    receiver.always = (204, b"")
    server = pipes.start(table(receiver, concurrency=8))
    wanted: set[str] = set()
    epochs: dict[str, list[int]] = {}

    def take() -> None:
        found = taken(receiver, OLD)
        assert found.records == [MARK]
        epochs.setdefault(found.session, []).append(found.epoch)

    for round_number in range(4):
        with redis.Redis(*server.address) as client:
            made = [client.execute_command("NEW", 7, MARK).decode() for _ in range(40)]
            wanted.update(made)
            with client.pipeline(transaction=False) as batch:
                for each in made:
                    batch.execute_command("STORE", each, 0)
                batch.execute()
        for _ in range(10):
            take()
        if round_number < 3:
            server.kill()
            server = pipes.start_again(server.config)
    with redis.Redis(*server.address) as client:
        while client.execute_command("LS")[1]:
            pass
    assert server.terminate() == 0
    while not receiver.posts.empty():
        take()
    assert set(epochs) == wanted
    for seen in epochs.values():
        assert len(set(seen)) == len(seen)


def test_a_key_is_changed_without_a_gap(pipes: Servers, receiver: Receiver) -> None:
    """The file gets the new key beside the old one; receivers follow when they like; then the old one goes."""
    for written, taken_by in [(OLD, [OLD]), (f"{NEW}\n{OLD}\n", [OLD]), (f"{NEW}\n{OLD}\n", [NEW]), (NEW, [NEW])]:
        (pipes.directory / "whsec").write_text(written)
        server = pipes.start(table(receiver))
        store(server)
        assert taken(receiver, *taken_by).records == [MARK]
        receiver.answers.put((204, b""))
        assert server.terminate() == 0


def test_neither_secrets_nor_records_are_logged(pipes: Servers, receiver: Receiver) -> None:
    (pipes.directory / "whsec").write_text(f"{OLD}\n{NEW}")
    server = pipes.start(table(receiver, max_attempts=3, backoff={"base": "0s"}), node='log_level = "debug"\n')
    store(server)
    for answer in [(500, b"out of order"), (200, b"{}"), (302, b"")]:
        assert taken(receiver, OLD).records == [MARK]
        receiver.answers.put(answer)
    server.wait_line("session parked")
    assert server.terminate() == 0
    everything = "".join(server.lines)
    assert "answered 500: out of order" in everything
    for secret in (OLD, NEW, OLD.removeprefix("whsec_"), MARK.decode(), "bWFya2Vk"):
        assert secret not in everything


def test_a_secret_that_is_none_is_refused_before_anything_starts(pipes: Servers, tmp_path: Path) -> None:
    (pipes.directory / "whsec").write_text("whsec_hushhush")
    config = pipes.configure(kind(handler="https://host/", webhook={"secret_file": "whsec"}))
    code, said = pipes.refused(config)
    assert code
    assert "kinds.transfer.webhook" in said
    assert "hush" not in said
    assert not (tmp_path / "data").exists()
