"""Fuzzing for as long as you like: `python -m fuzz NAME --seconds 60`; without a name, the list of targets.

With atheris, a fuzzer that goes where the code was not yet; it keeps what led to new code under build/fuzz/NAME and
begins with it the next time. Without it (or with --dice) inputs come from dice: seeds, damaged, `--seed N` the first.
Exit status 1 when a property does not hold: the input is then in build/fuzz/NAME-found. To run one input again:
`python -m fuzz NAME FILE`.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

BUILD = Path("build/fuzz")
SEEDS = 200
INPUT_BYTES_MAX = 65_536


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("name", nargs="?", default="")
    options.add_argument("file", nargs="?", type=Path, default=None, help="one input, to be run again")
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--seed", type=int, default=None)
    options.add_argument("--dice", action="store_true", help="do not use atheris")
    chosen = options.parse_args()
    guided = not chosen.dice and chosen.file is None and find_spec("atheris") is not None
    if guided:
        import atheris

        with atheris.instrument_imports(include=["truba"], enable_loader_override=False):
            from fuzz.targets import TARGETS
    else:
        from fuzz.targets import TARGETS
    if chosen.name not in TARGETS:
        print("targets:", *TARGETS)  # noqa: T201 - a program's output
        return 0 if not chosen.name else 2
    seed = random.SystemRandom().randrange(2**32) if chosen.seed is None else chosen.seed
    if chosen.file is not None:
        from fuzz.target import check

        check(TARGETS[chosen.name], chosen.file.read_bytes())
        print(f"{chosen.name}: the property holds for {chosen.file}")  # noqa: T201
        return 0
    if guided:
        return _guided(chosen.name, chosen.seconds, seed)
    why = "as told" if chosen.dice else "atheris is not installed"
    print(f"{chosen.name}: inputs from dice ({why}), first seed {seed}")  # noqa: T201
    return _diced(chosen.name, chosen.seconds, seed)


def _guided(name: str, seconds: float, seed: int) -> int:
    """Never returns by itself: libFuzzer ends the process, with status 77 or so when a property does not hold."""
    import atheris

    from fuzz.mutate import one
    from fuzz.target import check
    from fuzz.targets import TARGETS, found

    target = TARGETS[name]
    corpus, room = BUILD / name, BUILD / f"{name}-found"
    corpus.mkdir(parents=True, exist_ok=True)
    room.mkdir(parents=True, exist_ok=True)
    dice = random.Random(seed)
    for data in [one(target, dice) for _ in range(SEEDS)] + [path.read_bytes() for path in found(target)]:
        (corpus / sha256(data).hexdigest()[:24]).write_bytes(data)
    words = BUILD / f"{name}.dict"
    words.write_text("".join(f'"{"".join(f"{chr(92)}x{byte:02x}" for byte in token)}"\n' for token in target.tokens))
    runs = 0

    def run(data: bytes) -> None:
        nonlocal runs
        runs += 1
        check(target, data, measured=runs % 64 == 0)

    atheris.Setup(
        [
            sys.argv[0], str(corpus), f"-max_total_time={max(1, round(seconds))}", f"-seed={seed % 2**31 + 1}",
            f"-max_len={INPUT_BYTES_MAX}", f"-artifact_prefix={room}/", "-timeout=25", "-rss_limit_mb=2048",
            "-print_final_stats=1", "-verbosity=1", *([f"-dict={words}"] if target.tokens else []),
        ],
        run,
    )  # fmt: skip
    atheris.Fuzz()
    return 0


def _diced(name: str, seconds: float, seed: int) -> int:
    from fuzz.mutate import one
    from fuzz.target import check
    from fuzz.targets import TARGETS

    target = TARGETS[name]
    end_s, inputs = time.monotonic() + seconds, 0
    while not inputs or time.monotonic() < end_s:
        data = one(target, random.Random(seed + inputs))
        try:
            check(target, data, measured=inputs % 16 == 0)
        except Exception:
            room = BUILD / f"{name}-found"
            room.mkdir(parents=True, exist_ok=True)
            path = room / sha256(data).hexdigest()[:24]
            path.write_bytes(data)
            print(f"{name}: seed {seed + inputs}, the property does not hold for {path}")  # noqa: T201
            raise
        inputs += 1
    print(f"{name}: {inputs} inputs, the property holds")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
