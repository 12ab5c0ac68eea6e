"""Configuration: one strict TOML file, refused with every problem at once before anything starts."""

from truba.address import Address
from truba.config.admin import Admin, AdminToken
from truba.config.cluster import Cluster, ClusterNode
from truba.config.load import load, read_secret, read_webhook
from truba.config.model import Config, Frontend, KindTable, Node, WebhookTable
from truba.config.problems import ConfigProblems, Problem

__all__ = [
    "Address",
    "Admin",
    "AdminToken",
    "Cluster",
    "ClusterNode",
    "Config",
    "ConfigProblems",
    "Frontend",
    "KindTable",
    "Node",
    "Problem",
    "WebhookTable",
    "load",
    "read_secret",
    "read_webhook",
]
