from tests.mutants.catalogue import *
import re,sys
for m in catalogue().values():
    try: compile(m.mutate(m.path.read_text()),str(m.path),"exec")
    except (ValueError, SyntaxError) as e: print(m.id, e)
    for t in m.tests:
        f,_,n=t.partition("::")
        if not (ROOT/f).exists() or (n and n.split("[")[0].split("::")[-1] not in (ROOT/f).read_text()): print(m.id,"no test",t)
print(len(catalogue()))
