"""How a sweep or a training ends before its time: at the next good moment when asked, at once when told."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_AT_ONCE = (signal.SIGTERM, signal.SIGHUP)


@dataclass
class Stop:
    """Whether the user has asked to stop."""

    requested: bool = False


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Inside, the first SIGINT sets ``requested`` and a second raises KeyboardInterrupt; SIGTERM and SIGHUP
    raise SystemExit(128 + number), unless they were ignored (nohup)."""
    stop = Stop()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        _say("stopping after this cell; interrupt again to stop now")

    def at_once(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        _say(f"ended by {name}: the rows of finished cells are kept; start again to go on")
        raise SystemExit(128 + number)

    before = {signal.SIGINT: signal.signal(signal.SIGINT, on_interrupt)}
    for number in _AT_ONCE:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, at_once)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_at_next_step() -> Iterator[Stop]:
    """Inside, SIGINT, SIGTERM and SIGHUP set ``requested``, unless they were ignored (nohup)."""
    stop = Stop()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.requested = True

    before = {
        number: signal.signal(number, on_signal)
        for number in (signal.SIGINT, *_AT_ONCE)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(text: str) -> None:
    """A line on stderr without its buffer, which the signal may have found half written."""
    os.write(2, f"pardec: {text}\n".encode())
