"""What size costs, and whether anything ever stands still: `python -m bench.scale`, `make scale`.

__main__   the command
run        the measurements in order, each in a process of its own (`child`)
parts/     what runs in those processes: a function each, from values to a result
pauses     how late a loop is, sampled each millisecond
pipes      pipes to measure, and loads for them
results    the values that come out, and the goals that they are held against
report     tables; charts   pictures
"""
