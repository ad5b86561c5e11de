"""The control plane: JSON API, pages, and the doors to MLflow and git. It decides nothing."""
