"""What a candidate must show on rows that it has not seen. A gate passes, refuses, or says that it cannot tell."""
