"""Where a program runs: the device, and the processes beside it."""

# Seconds after which processes no longer wait for each other: one of them hangs, or is gone.
TIMEOUT = 120.0
