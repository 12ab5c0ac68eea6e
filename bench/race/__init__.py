"""The same job on truba and on others, durable before each answer, in one run: `make race`, `python -m bench.race`.

    run          takes turns over sides and numbers of clients, and sums up
    turns        whose turn it is; medians and ratios                                   pure
    report       the result as a table, as Markdown, as JSON                            pure
    script       what a connection says and must hear                                   pure
    load         compiles and runs load.c, the load; and null.c, a server that does nothing
    processes    servers: started, frozen between turns, their processor time, ended
    sides/       one module for each side: how it starts, and how it does the job
    workers/     clients and services of the workflow engines

The method, in whose favour it is biased and the last result are in bench/README.md.
"""
