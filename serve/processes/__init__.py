"""The composition root: the processes of a fleet, a file each, where ports meet the things behind them.

Each `wire` follows the recipe of one kind of process. What it imports its process loads, and no other.
"""
