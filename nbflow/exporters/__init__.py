"""Flow → the files of another tool; pure: data in, text out. One exporter a target, found by name through `plugins`."""
