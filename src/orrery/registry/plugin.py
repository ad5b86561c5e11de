"""What MLflow finds through its entry points: light, since MLflow loads it while it is being imported itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orrery.registry.versions import ARTIFACT_ROOT

if TYPE_CHECKING:
    from orrery.registry.store import TimelineRegistryStore, TimelineTrackingStore


def registry_store(store_uri: str) -> TimelineRegistryStore:
    """Return the model registry of an ``orrery+...`` URI."""
    from orrery.registry.store import TimelineRegistryStore

    return TimelineRegistryStore(store_uri)


def tracking_store(store_uri: str, artifact_uri: str | None = None) -> TimelineTrackingStore:
    """Return the runs and experiments of an ``orrery+...`` URI."""
    from orrery.registry.store import TimelineTrackingStore

    return TimelineTrackingStore(store_uri, artifact_uri or ARTIFACT_ROOT)
