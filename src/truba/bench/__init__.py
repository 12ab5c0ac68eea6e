"""What `truba bench` measures: operations a second, and how long each one takes, embedded and over TCP.

    run        takes turns over modes and concurrencies, and sums up
    worker     a process that measures, and how it is talked to
    embedded   the worker that holds the pipe itself
    load       the worker that loads a pipe over its wire protocol
    served     a pipe as a process of its own, for as long as it is measured
    disk       what the disk alone can do
    latency, machine, report: values

The method, and in whose favour it is biased, is in docs/benchmark.md.
"""
