"""Files written beside the training: in order, whole before it ends, and a failure is heard of."""

import os
import signal
import threading
import time

import pytest

from pronk.train.writer import Writer


def test_everything_is_done_in_order_before_the_end():
    done = []
    with Writer() as writer:
        for number in range(20):
            writer.later(lambda number=number: (time.sleep(0.001), done.append(number)))
        assert len(done) < 20, "it is done here, not beside"
    assert done == list(range(20))


def test_waiting_means_that_all_is_written():
    done = []
    with Writer() as writer:
        writer.later(lambda: (time.sleep(0.05), done.append(1)))
        writer.wait()
        assert done == [1]


def test_a_failure_is_raised_and_what_comes_after_it_is_not_written():
    done = []

    def fails():
        raise OSError(28, "No space left on device")

    def train():
        with Writer() as writer:
            gate = threading.Event()
            writer.later(gate.wait)
            writer.later(fails)
            writer.later(lambda: done.append("refers to what is not there"))
            gate.set()
            writer.wait()

    with pytest.raises(OSError, match="No space"):
        train()
    assert not done


def test_a_failure_of_the_last_file_is_not_lost():
    with pytest.raises(ValueError, match="at the very end"), Writer() as writer:
        writer.later(lambda: (_ for _ in ()).throw(ValueError("at the very end")))


def test_what_waits_is_bounded_but_anything_gets_through():
    gate = threading.Event()
    with Writer(room=10) as writer:
        writer.make_room(100)  # alone, whatever its size
        writer.later(gate.wait, 100)
        waited = threading.Thread(target=writer.make_room, args=(1,))
        waited.start()
        waited.join(0.05)
        assert waited.is_alive(), "there is no room, and nobody waits"
        gate.set()
        waited.join(5)
        assert not waited.is_alive()


def test_after_a_failure_nothing_more_is_done():
    """A removal that was handed over at that very moment would take the last good checkpoint."""
    done = []

    def fails():
        raise OSError(28, "No space left on device")

    writer = Writer()
    writer.later(fails)
    writer._thread.join(5)
    with pytest.raises(OSError, match="No space"):
        writer.later(lambda: done.append(1))
    with writer._changed:  # as if it had come before the failure was known
        writer._tasks.append((lambda: done.append(2), 0))
        writer._changed.notify_all()
    writer._thread.join(0.1)
    assert not done
    assert not writer._thread.is_alive()


def test_an_insisting_ctrl_c_at_the_end_drops_what_waits():
    done, begun, gate = [], threading.Event(), threading.Event()

    def presses():
        begun.wait(5)
        time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        gate.set()

    def train():
        with Writer() as writer:
            writer.later(lambda: (begun.set(), gate.wait(5), done.append("in hand")))
            writer.later(lambda: done.append("waiting"))
            threading.Thread(target=presses).start()

    with pytest.raises(KeyboardInterrupt):
        train()
    assert done == ["in hand"]


def test_another_error_of_the_training_is_the_one_that_is_told_and_what_waits_is_written():
    done = []

    def train():
        with Writer() as writer:
            writer.later(lambda: (time.sleep(0.02), done.append(1)))
            writer.later(lambda: done.append(2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert done == [1, 2]


def test_an_insisting_ctrl_c_waits_for_the_file_in_hand_only():
    done, begun, gate = [], threading.Event(), threading.Event()

    def train():
        with Writer() as writer:
            writer.later(lambda: (begun.set(), gate.wait(5), done.append("in hand")))
            writer.later(lambda: done.append("waiting"))
            begun.wait(5)
            threading.Timer(0.02, gate.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert done == ["in hand"]
