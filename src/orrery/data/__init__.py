"""Datasets with versions and contracts, the prediction log, and the labels that join to it."""
