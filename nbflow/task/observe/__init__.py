"""What an execution depends on, seen while it runs. Begin with `observer`."""
