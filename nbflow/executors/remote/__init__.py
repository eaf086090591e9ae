"""Tasks on other machines: `executor` gives them to an engine and follows them, `task_worker` runs one over there."""
