"""A slow cable: carries packets between two TUN devices, late, and loses some.

python -m surveys.reliability.relay NAMESPACE NAMESPACE MILLISECONDS PERCENT

The devices, ``slow0`` in either network namespace, are there once "ready" is said, and go with the process.
SIGTERM ends it; what it carried is said then.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import selectors
import signal
import struct
import sys
import time
from collections import deque
from pathlib import Path

DEVICE = "slow0"
TUN = Path("/dev/net/tun")

# Of the kernel: <linux/if_tun.h>, <sched.h>.
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000
_CLONE_NEWNET = 0x40000000
# Waiting in a switch: more is lost, as in any.
_MOST_WAITING = 1000
_MOST_BYTES = 1 << 16


def device(namespace: str) -> int:
    """A new TUN device in a network namespace: the file of its packets. This thread moves there."""
    handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"no way into the namespace {namespace}")
    finally:
        os.close(handle)
    found = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(found, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    return found


class Cable:
    """Both directions between two devices.

    Args:
        ends: the devices.
        delay: of each packet, in seconds.
        loss: of the packets, the part that is lost.
    """

    def __init__(self, ends: tuple[int, int], delay: float, loss: float) -> None:
        self.ends = ends
        self.delay = delay
        self.loss = loss
        self.carried = self.lost = self.bytes = 0
        self._random = random.Random(0)
        # When it is due, to which end, and the packet: all are as late, so the first is due first.
        self._waiting: deque[tuple[float, int, bytes]] = deque()

    def carry(self) -> None:
        """Carries until somebody ends it."""
        with selectors.DefaultSelector() as selector:
            for end, other in (self.ends, self.ends[::-1]):
                selector.register(end, selectors.EVENT_READ, other)
            while True:
                wait = self._waiting[0][0] - time.monotonic() if self._waiting else None
                for key, _ in selector.select(None if wait is None else max(0.0, wait)):
                    self._take(key.fd, key.data)
                self._give()

    def _take(self, end: int, other: int) -> None:
        """Takes what waits at one end."""
        while True:
            try:
                packet = os.read(end, _MOST_BYTES)
            except BlockingIOError:
                return
            if self._random.random() < self.loss or len(self._waiting) >= _MOST_WAITING:
                self.lost += 1
            else:
                self._waiting.append((time.monotonic() + self.delay, other, packet))

    def _give(self) -> None:
        """Gives what is due to the other end."""
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            _, other, packet = self._waiting.popleft()
            try:
                os.write(other, packet)
            except BlockingIOError:  # it takes no more
                self.lost += 1
                continue
            self.carried += 1
            self.bytes += len(packet)


def main(words: list[str]) -> int:
    """Carries until SIGTERM."""
    first, second, delay, loss = words
    cable = Cable((device(first), device(second)), float(delay) / 1000, float(loss) / 100)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("ready", flush=True)
    try:
        cable.carry()
    except KeyboardInterrupt:
        print(f"{cable.carried} carried, {cable.lost} lost, {cable.bytes} bytes", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
