"""Watches production: one file a monitor; each says what it looks at, its null, its promise and its state."""
