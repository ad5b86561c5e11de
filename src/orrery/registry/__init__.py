"""Versions, their artifacts and the names that point at them: MLflow's registry, written together with the timeline."""
