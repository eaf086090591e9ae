"""Begin a run, read one back, compare, export, clean up. Begin with `launch.run` and `client`."""
