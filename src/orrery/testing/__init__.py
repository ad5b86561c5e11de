"""Contract suites that orrery ships: whoever writes another implementation runs them on it."""
