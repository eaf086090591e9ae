"""Values ↔ bytes, and everything that a run leaves. Begin with `location.open_store`, then `records`."""
