"""A locked environment for each commit, and the project's own tests in it."""
