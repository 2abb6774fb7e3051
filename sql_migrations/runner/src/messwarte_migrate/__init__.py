"""Applies versioned SQL to a PostgreSQL that is in use, and refreshes its materialised views."""

__version__ = "0.1.0"


class MigrationError(Exception):
    """What failed, why, and what to do; shown to people as it is."""
