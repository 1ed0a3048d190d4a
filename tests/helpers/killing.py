"""A process that kills itself at a moment."""

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
"""Kills the process the nth time that a file whose path matches is about to be opened or renamed; Python tells its audit hooks of both.

What follows in the script is run with the arguments after event, pattern and n.
"""
