"""A tiny pipe: owners, tags, counts, grace, idle_timeout. What a client believes is compared with what it did.

Sessions are told apart by tag, writes by their record, so that anything lost or doubled shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Job:
    """One session, for ever."""

    number: int
    tag: int
    log: list[bytes] = field(default_factory=list)  # everything applied, in order: records, then DELETE, STORE or FAIL
    held: bool = True
    operations: int = 0
    touched_s: float = 0.0

    @property
    def id_text(self) -> bytes:
        return b"1-%d" % self.number


class TinyPipe:
    """One owner, one connection at a time; time is what it is told."""

    def __init__(self, grace_s: float = 10.0, idle_s: float = 1e9) -> None:
        self.grace_s = grace_s
        self.idle_s = idle_s
        self.jobs: list[Job] = []
        self.left_s: float | None = None

    def held(self) -> dict[bytes, Job]:
        return {job.id_text: job for job in self.jobs if job.held}

    def pass_time(self, now_s: float) -> None:
        """Take away what its time has come for."""
        for job in self.held().values():
            away = self.left_s is not None and now_s >= self.left_s + self.grace_s
            if away or (self.left_s is None and now_s >= job.touched_s + max(self.idle_s, self.grace_s)):
                job.held = False

    def leave(self, now_s: float) -> None:
        self.left_s = now_s

    def owner(self, now_s: float) -> list[list[object]]:
        self.left_s = None
        for job in self.held().values():
            job.touched_s = now_s
        return [[job.id_text, 7, job.tag, job.operations] for job in self.held().values()]

    def ask(self, args: list[bytes], now_s: float) -> bytes:
        """The answer, encoded."""
        match args:
            case [b"PING"]:
                return b"+PONG\r\n"
            case [b"LEADER"]:
                return b"$-1\r\n"
            case [b"AUTH", *_]:
                return b"+OK\r\n"
            case [b"OWNER", *_]:
                listed = self.owner(now_s)
                parts = [b"*%d\r\n" % len(listed)]
                for id_text, kind, tag, operations in listed:
                    assert isinstance(id_text, bytes)
                    parts.append(b"*4\r\n$%d\r\n%b\r\n:%d\r\n:%d\r\n:%d\r\n" % (
                        len(id_text), id_text, kind, tag, operations,
                    ))  # fmt: skip
                return b"".join(parts)
            case [b"NEW", _, b"TAG", tag, *records]:
                for job in self.held().values():
                    if job.tag == int(tag):
                        break
                else:
                    job = Job(len(self.jobs) + 1, int(tag), list(records), touched_s=now_s)
                    self.jobs.append(job)
                return b"$%d\r\n%b\r\n" % (len(job.id_text), job.id_text)
            case [verb, id_text, *rest]:
                found = self.held().get(id_text)
                if found is None:
                    return b"-FENCED not yours; nothing was stored\r\n"
                found.touched_s = now_s
                match verb:
                    case b"APPEND" | b"REPLACE":
                        found.log += rest
                        found.operations += 1
                    case b"DELETE" | b"STORE" | b"FAIL":
                        found.log.append(verb)
                        found.held = False
                return b"+OK\r\n"
        raise AssertionError(args)
