"""Throw-away Debian 13 hosts on this machine (systemd-nspawn), for trying out and for tests."""

from lab.lab import Lab
from lab.machine import Machine
from lab.system import LabError
from lab.trees import purge_trees

__all__ = ["Lab", "LabError", "Machine", "purge_trees"]
