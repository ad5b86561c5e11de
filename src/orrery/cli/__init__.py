"""The command line: each command opens the orrery of a home folder, says or does one thing, and ends."""
