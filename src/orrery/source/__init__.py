"""Where projects come from: git repositories that orrery hosts, and what a push to one does."""
