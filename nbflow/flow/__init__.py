"""A document → a flow: cells, options, parameters, steps, edges, findings. Begin with `graph.build_flow`."""
