"""Typed, strict settings and the secrets beside them; imports nothing else of ours."""

from settings.model import Settings, SettingsError, load
from settings.secrets import Secrets, scram_verifier
from settings.stores import SecretsError

__all__ = ["Secrets", "SecretsError", "Settings", "SettingsError", "load", "scram_verifier"]
