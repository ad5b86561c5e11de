"""Pipelines of plain functions: content keys, cache, and a version on disk that answers wherever it is loaded."""
