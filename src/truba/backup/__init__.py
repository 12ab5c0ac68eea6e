"""Copies of a pipe that outlive it: made beside the running pipe or of a stopped one, verified, restored."""
