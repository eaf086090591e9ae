"""A value ↔ a stream and buffers, without input or output. Begin with `pickler`."""
