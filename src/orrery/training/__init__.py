"""From a project's plain functions to a trained model: pipelines, their cache, and the runs that make versions."""
