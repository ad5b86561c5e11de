"""Who does the work: leases on actions, contained processes for the project's code, and the supervisor."""
