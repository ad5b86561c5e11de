"""Who may do what: accounts, their roles, and the keys that they show. Every change of them is an event.

No secret is ever stored or written down: of passwords and keys only hashes are kept, and events name a key by its id.
"""
