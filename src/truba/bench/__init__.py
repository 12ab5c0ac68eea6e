"""`truba bench`: how many operations a second, and what they wait for. Method and bias: docs/benchmark.md."""
