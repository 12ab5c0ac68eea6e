"""The handler completes a transfer from wherever its worker left it."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

import truba
from truba.demo.bank import Banks
from truba.demo.handler import finish
from truba.demo.proof import prove
from truba.demo.transfers import CREDITED, DEBITED, KIND, bundled

WORK = bundled(6)


async def test_it_completes_from_every_gap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Banks.create(tmp_path, WORK)
    left_after = {
        # what the worker did in the banks, and the records that it still wrote
        WORK[0]: ("", []),
        WORK[1]: ("debit", []),
        WORK[2]: ("debit", [DEBITED]),
        WORK[3]: ("debit credit", [DEBITED]),
        WORK[4]: ("debit credit", [DEBITED, CREDITED]),
        WORK[5]: ("late", []),
    }
    kinds = [truba.Kind(KIND, "transfer", partial(finish, tmp_path), recovery_delay_s=0, jitter_s=0)]
    async with truba.open(tmp_path / "pipe", kinds=kinds) as pipe:
        with Banks(tmp_path) as banks:
            for transfer, (done, records) in left_after.items():
                session = await pipe.new(KIND, transfer.to_record(), *records)
                if "debit" in done:
                    banks.debit(transfer, by="worker", epoch=0)
                if "credit" in done:
                    banks.credit(transfer, by="worker", epoch=0)
                await session.store(0)
            async with asyncio.timeout(10):
                while any(pipe.node.machine.counts.values()):  # noqa: ASYNC110 - the pipe tells nobody that it is empty
                    await asyncio.sleep(0.01)
            # A worker that was paused before its first step wakes up now.
            assert not banks.debit(WORK[5], by="worker", epoch=0)
            assert not banks.credit(WORK[5], by="worker", epoch=0)
    proof = prove(tmp_path, WORK)
    assert proof.holds, proof.broken
    assert (proof.debited_by_handler, proof.credited_by_handler) == (2, 4)
    assert proof.repeats == 4  # twice it could not know; twice the late worker
    said = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in said if line.startswith("finished")} == {transfer.id for transfer in WORK}
