"""What a run of the load fleet shows, as one page; and what differs between two runs."""
