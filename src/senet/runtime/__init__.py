"""Where a program runs: the device, and the processes beside it."""
