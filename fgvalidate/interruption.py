"""Interrupts: SIGINT, SIGTERM and SIGHUP come in, exceptions go out that clean up on their way."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn


class Terminated(BaseException):
    """SIGTERM reached us, or SIGHUP; everything is cleaned up on the way out."""


@dataclass
class Interrupts:
    """Which of them came; a library may make another error of the exception."""

    is_interrupted: bool = False
    """Whether SIGINT has reached us."""


@contextmanager
def raise_on_signals() -> Iterator[Interrupts]:
    """While it is open, SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP raise Terminated, in the main thread."""
    interrupts = Interrupts()

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.is_interrupted = True
        signal.default_int_handler(number, frame)

    def terminate(_number: int, _frame: FrameType | None) -> NoReturn:
        raise Terminated

    handlers = {signal.SIGINT: interrupt, signal.SIGTERM: terminate, signal.SIGHUP: terminate}
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        # A shell that starts us in the background has SIGINT ignored, nohup SIGHUP, and they mean it.
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield interrupts
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
