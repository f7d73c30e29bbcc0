"""SIGTERM asks; processes agree one step later."""

import os
import signal
import threading

import jax

from talking_heads_jax.train.sharding import make_mesh
from talking_heads_jax.train.termination import Termination


def mesh():
    return make_mesh(devices=jax.devices()[:1])


def test_one_process_answers_at_once_and_restores_the_handler():
    termination = Termination(mesh())
    before = signal.getsignal(signal.SIGTERM)
    with termination.on_sigterm():
        assert not termination.agreed()
        os.kill(os.getpid(), signal.SIGTERM)
        assert termination.agreed()
    assert signal.getsignal(signal.SIGTERM) is before


def test_several_processes_answer_one_step_later():
    """The maximum of the flags is read at the next call, so that no step waits for it."""
    termination = Termination(mesh(), processes=2)
    assert [termination.agreed() for _ in range(3)] == [False] * 3
    termination.request()
    assert [termination.agreed() for _ in range(3)] == [False, True, True]


def test_a_thread_that_may_not_handle_signals_still_runs():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with Termination(mesh()).on_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
