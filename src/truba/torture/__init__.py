"""`truba torture`: a real pipe, its clients and its handlers are killed again and again; what they were told must fit.

run                   rounds by seed, until the time is over; what came of them
round                 one of them, from an empty directory to its findings
plan, kept, harm      who takes part; starts them again and again; who is killed or frozen, and when
client, handler       the processes under torture; each writes all that it asks and is told into its own journal
journal, history      the journal as a file, and what its lines mean
sessions              the lines of all journals -> the calls of each session
checker               is there an order of a session's calls that explains every answer? imports nothing of truba
story                 a session that nothing explains, for people
"""
