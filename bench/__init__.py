"""Benchmarks, each a module with `main(argv) -> int`; `messwarte bench NAME` runs one."""
