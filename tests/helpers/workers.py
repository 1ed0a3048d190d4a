"""Worker processes of a search."""

import os
import subprocess
import sys
import time

# A worker in a process of its own: folder, storage, trials.
WORKER = """
import sys
import competition.search.storage
from helpers.searches import plan, search
folder, storage, trials = sys.argv[1:]
competition.search.storage.HEARTBEAT = 1
opened = competition.search.storage.open_storage(storage)
search(plan(folder, int(trials), storage=storage), opened, folder).run()
"""


def worker(folder, storage, trials, **environment):
    path = os.pathsep.join([os.path.dirname(os.path.dirname(__file__)), *sys.path])
    command = [sys.executable, "-c", WORKER, str(folder), str(storage), str(trials)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path, **environment}, stdout=subprocess.DEVNULL)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] != "Z"
    except FileNotFoundError:
        return False
