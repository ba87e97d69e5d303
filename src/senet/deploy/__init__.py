"""Networks as files that other engines run, each compared with the network before it is there."""
