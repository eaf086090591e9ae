"""One cell run, watched from start to end; the same stages in every lane. Begin with `stages`."""
