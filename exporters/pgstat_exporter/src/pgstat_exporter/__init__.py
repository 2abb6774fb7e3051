"""PostgreSQL's pg_stat views as Prometheus metrics; each topic is SQL plus a declaration of its metrics."""

__version__ = "0.1.0"
