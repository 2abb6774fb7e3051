"""Shows on a running stack that panels have data, and that alerts fire, arrive and resolve."""
