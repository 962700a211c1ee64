"""The simulator: the real runtime in one thread, on virtual time, with chance and faults from a seed."""
