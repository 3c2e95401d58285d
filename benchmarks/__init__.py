"""Speed and memory of this server, side by side with its peers: `make bench`, and README.md for what it gave.

Every comparison is made of pairs: one run of each, one after the other, on the same machine, file, threads,
prompts and load, with the order swapped from pair to pair. A pair is written down as soon as it is done, so a
measurement that was interrupted goes on where it stopped.
"""
