"""What is there already joins in: PostgreSQL gets a role, Prometheus files, Grafana dashboards; nothing restarts."""


class AttachError(Exception):
    """Why something could not be attached; the message says what to do."""
