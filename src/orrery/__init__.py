"""orrery keeps machine-learning models true while the world moves."""
