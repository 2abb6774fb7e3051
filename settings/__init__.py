"""Typed, strict settings and the secrets beside them; imports nothing else of ours."""

from settings.model import Settings, SettingsError, load
from settings.secrets import Secrets, SecretsError, scram_verifier

__all__ = ["Secrets", "SecretsError", "Settings", "SettingsError", "load", "scram_verifier"]
