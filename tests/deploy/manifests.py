"""The manifests of deploy/kubernetes, read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.support import ROOT

DIRECTORY = ROOT / "deploy" / "kubernetes"


def documents(manifest: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(manifest.read_text()))


def only(manifest: Path, kind: str) -> dict[str, Any]:
    (found,) = (document for document in documents(manifest) if document["kind"] == kind)
    return found


def pod(manifest: Path) -> dict[str, Any]:
    found: dict[str, Any] = only(manifest, "StatefulSet")["spec"]["template"]
    return found


def pod_names(manifest: Path) -> list[str]:
    made = only(manifest, "StatefulSet")
    return [f"{made['metadata']['name']}-{n}" for n in range(made["spec"]["replicas"])]


def containers(manifest: Path) -> Iterator[dict[str, Any]]:
    yield from pod(manifest)["spec"].get("initContainers", [])
    yield from pod(manifest)["spec"]["containers"]


def text(manifest: Path, name: str) -> str:
    """A file of the ConfigMap."""
    return str(only(manifest, "ConfigMap")["data"][name])


def secrets_told(manifest: Path) -> dict[str, set[str]]:
    """Secret -> its keys, as the head of the file tells them."""
    found = re.findall(r"^#   (\S+) +((?:[\w.-]+, )*[\w.-]+)(?:;.*)?$", manifest.read_text(), re.MULTILINE)
    return {name: set(keys.split(", ")) for name, keys in found}


def hosts_told(manifest: Path) -> list[str]:
    """The names that the head of the file wants in the certificate."""
    head = manifest.read_text().partition("\napiVersion")[0]
    return re.findall(r"[\w*.-]+\.svc\b", head)
