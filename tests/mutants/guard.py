"""A plugin of the pytest that judges a mutant: it must import the copy, and says which test failed first.

Without it an installed truba, or a test that sets its own path, could win over the copy: every mutant would survive,
or worse, be called caught for another reason.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import hypothesis
import pytest

import truba
from tests.mutants.trial import FAILED, SOURCE

_failed = Path(os.environ[FAILED])
_source = Path(os.environ[SOURCE])

if Path(truba.__file__).parents[1] != _source:
    raise pytest.UsageError(f"truba comes from {truba.__file__}, not from {_source}")

# One failing example is enough: looking for the shortest takes most of the time.
hypothesis.settings.register_profile(
    "mutants", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate], database=None
)
hypothesis.settings.load_profile("mutants")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed and not _failed.exists():
        crash = getattr(report.longrepr, "reprcrash", None)
        why = crash.message if crash is not None else str(report.longrepr)
        _failed.write_text(json.dumps({"test": report.nodeid, "why": why}))
