"""The live notebook: document order, versions of names, cells run by hand. Begin with `session`."""
