"""Kernel ↔ browser: comms, the widget, snapshots. Begin with `comm`, then `publisher`."""
