"""What runs, what is reused, in which order. Begin with `state.apply`, then `runner`."""
