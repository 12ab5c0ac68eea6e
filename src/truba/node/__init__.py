"""The node: the concurrent shell around the machine. Sequencer, owners, dispatcher, checkpoints, timers."""
