"""Telling people and programs what happened: mail, chat and signed webhooks, from the timeline, at least once."""
