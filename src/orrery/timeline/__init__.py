"""What happened to every version, who did it, when and why: the only memory of orrery."""
