"""Script for a process that kills itself before a given file operation."""

KILLER = """
import os, re, signal, sys
event, pattern, times = sys.argv[1:4]
del sys.argv[1:4]
left = int(times)

def hook(name, args):
    global left
    if name == event and any(isinstance(a, (str, os.PathLike)) and re.search(pattern, os.fspath(a)) for a in args):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
"""
"""Script that kills its process at the nth event of opening or renaming a file whose path matches a pattern.

Python reports both events to audit hooks. The rest of the script gets the arguments after event, pattern and n.
"""
