"""Places where tasks run: each gets a TaskSpec and gives a handle with events; none sees the runner."""
