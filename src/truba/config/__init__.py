"""Configuration: one strict TOML file, refused with every problem at once before anything starts."""

from truba.address import Address
from truba.config.load import load, read_secret
from truba.config.model import Config, Frontend, KindTable, Node
from truba.config.problems import ConfigProblems, Problem

__all__ = ["Address", "Config", "ConfigProblems", "Frontend", "KindTable", "Node", "Problem", "load", "read_secret"]
