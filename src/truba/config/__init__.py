"""Configuration: one strict TOML file, refused with every problem at once before anything starts."""

from truba.address import Address
from truba.config.admin import Admin, AdminToken
from truba.config.cluster import Cluster, ClusterNode
from truba.config.judge import plain_places
from truba.config.load import load
from truba.config.model import Config, Frontend, KindTable, Node, WebhookTable
from truba.config.problems import ConfigProblems, Problem
from truba.config.secret import Secret, read_secret
from truba.config.webhooks import read_webhook

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
    "Secret",
    "WebhookTable",
    "load",
    "plain_places",
    "read_secret",
    "read_webhook",
]
