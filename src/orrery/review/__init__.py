"""What people say of a version: yes, no, and why."""
