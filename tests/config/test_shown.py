"""A configuration that is shown tells everything but secrets."""

from __future__ import annotations

import json
from pathlib import Path

from truba.config import Config, load
from truba.config.shown import shown


def test_every_key_is_shown_and_no_secret(tmp_path: Path) -> None:
    for name in ("password", "token", "secret"):
        (tmp_path / name).write_text(f"hush-{name}-0123456789abcdef")
    path = tmp_path / "truba.toml"
    path.write_text(
        f"""
        [node]
        password_file = "password"
        [[node.frontends]]
        factory = "a:b"
        options = {{ key = "hush-option", port = 1 }}
        [admin]
        token_file = "token"
        tokens.ann = {{ sha256 = "{"ab" * 32}", may = "operate" }}
        [transports]
        amqp = "a:b"
        [kinds.transfer]
        number = 7
        handler = "amqp://ann:hush-user@host/queue"
        [kinds.mail]
        number = 8
        handler = "truba://127.0.0.1:1"
        handler_secret_file = "secret"
        """
    )
    config: Config = load(path)
    assert len(config.kinds) == 2  # what is worked out once is no key
    document = shown(config)
    text = json.dumps(document)
    assert "hush" not in text
    assert "ab" * 32 not in text
    assert document["node"]["listen"] == "127.0.0.1:7433"
    assert document["node"]["frontends"] == [{"factory": "a:b", "options": {"key": "(hidden)", "port": "(hidden)"}}]
    assert document["admin"]["tokens"] == {"ann": {"sha256": "(hidden)", "may": "operate"}}
    assert document["kinds"]["transfer"]["handler"] == "amqp://(hidden)@host/queue"
    assert document["kinds"]["mail"]["handler_secret_file"] == str(tmp_path / "secret")
    assert document["kinds"]["mail"]["backoff"] == {"base": 1.0, "factor": 2.0, "cap": 600.0}
