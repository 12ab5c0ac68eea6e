"""The composition root of a node in a cluster: its disk, its doors, its stream."""
