"""What asks a sweep or a training to end, and what a shell that closes may not end."""

import signal

import pytest

from harness.machine.stopping import stop_at_next_step, stop_on_signals

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def given_back():
    before = [signal.getsignal(number) for number in ALL]
    yield
    assert [signal.getsignal(number) for number in ALL] == before


def test_the_first_interrupt_asks_and_the_second_ends(capfd):
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert "stopping after this cell" in capfd.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_batch_system_ends_a_sweep_at_once(capfd, number, status):
    with pytest.raises(SystemExit) as ended, stop_on_signals():
        signal.raise_signal(number)
    assert ended.value.code == status
    assert f"pardec: ended by {number.name}" in capfd.readouterr().err


@pytest.mark.parametrize("number", ALL)
def test_every_signal_asks_a_training(number):
    with stop_at_next_step() as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert stop.requested


@pytest.mark.parametrize("context", [stop_on_signals, stop_at_next_step])
def test_under_nohup_a_closed_terminal_stops_nothing(context):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with context() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)
