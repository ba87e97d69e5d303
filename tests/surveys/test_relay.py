"""The link of the bar `slow_link`."""

import os
import socket
import time

from surveys.reliability.relay import Cable


def test_packets_come_late_whole_and_some_not_at_all() -> None:
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    (left, near), (right, far) = pairs
    for each in (left, near, right, far):
        each.setblocking(False)
    cable = Cable((near.fileno(), far.fileno()), delay=0.05, loss=0.3)
    sent = [bytes([number]) * (1 + number) for number in range(200)]
    started = time.monotonic()
    came: list[bytes] = []
    for packet in sent:
        left.send(packet)
        cable._take(near.fileno(), far.fileno())
    cable._give()
    assert cable.carried == 0 or time.monotonic() - started >= 0.05
    while cable.carried + cable.lost < len(sent):
        cable._give()
        while cable.carried > len(came):
            came.append(os.read(right.fileno(), 1000))
    assert time.monotonic() - started >= 0.05
    assert came == [packet for packet in sent if packet in came], "in their order"
    assert 30 <= cable.lost <= 90
    assert cable.bytes == sum(map(len, came))
    for each in (left, near, right, far):
        each.close()
