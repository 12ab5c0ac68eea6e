"""Several nodes, one log: entries of the stream, the rule that judges them, followers, the leader."""
