"""Fast syncs stay on the loop, slow ones go to the thread, and a disk that recovers is noticed."""

from __future__ import annotations

from truba.log.pace import Pace

FAST_S, SLOW_S = 0.0001, 0.005


def feed(pace: Pace, duration_s: float, count: int) -> list[bool]:
    places = []
    for _ in range(count):
        places.append(pace.inline)
        pace.took(duration_s)
    return places


def test_a_fast_disk_stays_on_the_loop() -> None:
    assert all(feed(Pace(0.0005), FAST_S, 1_000))


def test_one_slow_sync_sends_the_next_to_the_thread_for_a_while() -> None:
    pace = Pace(0.0005)
    feed(pace, FAST_S, 100)
    feed(pace, SLOW_S, 1)
    places = feed(pace, FAST_S, 200)
    assert places[:32] == [False] * 32
    assert all(places[33:])


def test_a_slow_disk_never_stops_the_loop_twice() -> None:
    assert sum(feed(Pace(0.0005), SLOW_S, 10_000)) == 1


def test_a_mean_above_the_limit_is_enough() -> None:
    places = feed(Pace(0.0005), 0.0008, 1_000)
    assert sum(places) < 20


def test_waiting_for_the_interpreter_does_not_keep_it_on_the_thread() -> None:
    pace = Pace(0.0005)
    feed(pace, SLOW_S, 1)
    for _ in range(32):
        pace.took(FAST_S if _ % 8 == 0 else 0.006)
    assert pace.inline


def test_a_disk_that_is_slow_again_at_once_is_left_to_the_thread_for_longer() -> None:
    pace = Pace(0.0005)
    inline = 0
    for _ in range(10_000):
        inline += pace.inline
        pace.took(SLOW_S if pace.inline else FAST_S)
    assert inline < 20
