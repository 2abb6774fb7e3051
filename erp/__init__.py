"""The demo ERP of a food and chemicals maker: schema, data, server and workload. Its tables have German names."""

__version__ = "0.1.0"


class ErpError(Exception):
    """What failed, why, and what to do; shown to people as it is."""
