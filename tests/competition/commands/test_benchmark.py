"""What `marsls benchmark` does around the jobs."""

import threading
import time

from filelock import FileLock

from competition.commands.benchmark import _alone


def test_a_second_command_says_that_it_waits_for_the_speeds(tmp_path, caplog):
    caplog.set_level("INFO")
    with _alone(tmp_path):
        assert not caplog.text
    held, released = threading.Event(), []

    def measure():
        with FileLock(tmp_path / ".speed.lock"):
            held.set()
            time.sleep(0.2)
            released.append(True)

    first = threading.Thread(target=measure)
    first.start()
    held.wait()
    with _alone(tmp_path):
        assert released
    first.join()
    assert "Another command measures the speeds" in caplog.text
