"""`truba demo`: real processes move money between two banks, are killed, and the pipe has their work finished.

transfers   the work: 2,000 transfers, bundled as a file
bank        one bank: one SQLite file, steps that are idempotent by transfer
worker      a client of the pipe, as people write one; the step that would hurt most is where it dies
handler     finishes what dead workers left; the half that people will copy
processes   children that are started, watched, killed by their id, and never outlive the demo
killer      who dies, when and where: all from a seed
pipes       what the demo needs of a pipe, and the one that is a single process
cluster     a pipe of three nodes on three nats-servers
probe       a client of the cluster that only writes: how long nothing is acknowledged, and whether all is there
run         the whole demo, from empty directory to proof
proof       what the two databases say at the end
show        what is on the screen meanwhile
"""
