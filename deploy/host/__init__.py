"""Programs that run on a host, sent there on standard input; only Python's standard library."""
