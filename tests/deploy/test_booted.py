"""The unit in a real systemd: a container that has this machine's /usr and an empty rest is booted for it.

There the sandbox is what it is in production: the filter of system calls, no capabilities, a file system that cannot be
written to. Only the interpreter and truba are taken from where these tests have them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.support import ENVIRONMENT, LENT, PYTHON, ROOT

SYSTEMD = Path("/usr/lib/systemd/systemd")
UNITS = ROOT / "deploy" / "systemd"

TRUBA = f"{PYTHON} -m truba"

CONFIG = """
[node]
data = "/var/lib/truba"
unix = "/run/truba/truba.sock"
[kinds.transfer]
number = 7
handler = "truba://127.0.0.1:7434"
"""

PROBE = f"""
export {ENVIRONMENT}
say() {{ echo "$1: $(systemctl show -p "$2" --value truba)"; }}
restarted() {{ [ "$(systemctl show -p NRestarts --value truba)" = 1 ] && systemctl is-active -q truba; }}

timeout 60 systemctl start truba
say started StatusText
grep -E "^(CapEff|NoNewPrivs|Seccomp):" "/proc/$(systemctl show -p MainPID --value truba)/status"
ls -ld /run/truba /run/truba/truba.sock /var/lib/truba | cut -d " " -f 1,3

{PYTHON} -c '
import truba.sync
for url in ("truba://127.0.0.1:7433", "unix:///run/truba/truba.sock"):
    with truba.sync.connect(url) as pipe:
        pipe.new(7, b"kept").store(3600)
'
systemctl kill -s KILL truba
for _ in $(seq 60); do restarted && break; sleep 0.5; done
say restarts NRestarts
{TRUBA} ls --json

systemctl stop truba
say stopped ExecMainStatus
say result Result

echo "nonsense = 1" >> /etc/truba/truba.toml
timeout 60 systemctl start truba
say refused ExecMainStatus
say state ActiveState
journalctl -u truba -o cat --no-pager
"""

PROBE_UNIT = """
[Service]
Type=oneshot
ExecStart=/bin/sh -c "exec /bin/sh -x /probe/probe.sh > /probe/said 2> /probe/traced"
ExecStopPost=/bin/systemctl poweroff --force
"""


def boot(directory: Path) -> str:
    """What the probe said. Skips where no container can be booted at all."""
    unit = (UNITS / "truba.service").read_text()
    unit = unit.replace("/opt/truba/bin/truba", TRUBA).replace("[Service]\n", f"[Service]\nEnvironment={ENVIRONMENT}\n")
    etc = directory / "etc"
    etc.mkdir()
    (etc / "truba.toml").write_text(CONFIG)
    (directory / "probe.sh").write_text(PROBE)
    (directory / "truba.service").write_text(unit)
    (directory / "probe.service").write_text(PROBE_UNIT)
    seen = {
        **LENT,
        str(directory / "truba.service"): "/etc/systemd/system/truba.service",
        str(directory / "probe.service"): "/etc/systemd/system/probe.service",
        str(UNITS / "truba.sysusers"): "/etc/sysusers.d/truba.conf",
    }
    command = ["systemd-nspawn", "--quiet", "--directory=/", "--volatile=yes", "--register=no", "--keep-unit"]
    command += ["--private-network", f"--machine=truba-{os.getpid()}", f"--bind={directory}:/probe"]
    command += [f"--bind={etc}:/etc/truba", *(f"--bind-ro={here}:{there}" for here, there in seen.items())]
    # There is no network to be waited for, and nobody to answer the questions of a first boot.
    masked = [f"systemd.mask=systemd-networkd{part}.service" for part in ("", "-wait-online")]
    command += ["--boot", "systemd.unit=probe.service", "systemd.firstboot=off", *masked]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False)
    said = directory / "said"
    if not said.exists():
        pytest.skip(f"no container can be booted here: {(done.stderr or done.stdout)[-200:]}")
    return said.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root boots a container")
@pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="systemd-nspawn is not installed")
@pytest.mark.skipif(not SYSTEMD.exists(), reason="systemd is not installed")
def test_the_unit_in_a_real_systemd(tmp_path: Path) -> None:
    said = boot(tmp_path)
    traced = said + (tmp_path / "traced").read_text()
    assert "started: serving, term 1" in said, traced
    assert re.search(r"CapEff:\s+0+$", said, re.MULTILINE), traced
    assert re.search(r"NoNewPrivs:\s+1$", said, re.MULTILINE), traced
    assert re.search(r"Seccomp:\s+2$", said, re.MULTILINE), traced
    assert "drwx------ truba\nsrw------- truba\ndrwx------ truba\n" in said, traced
    assert "restarts: 1\n" in said, traced
    assert '"stored": 2' in said or '"stored":2' in said, traced
    assert "stopped: 0\nresult: success\n" in said, traced
    assert said.count('"event": "stopped"') == 1, traced
    assert "refused: 2\nstate: failed\n" in said, traced
    assert "nonsense: unknown key" in said, traced
