"""Runs on the database host: PostgreSQL's backups by pgBackRest, restores, and drills. Standard library only."""
