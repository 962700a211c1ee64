"""What each hop of a turn takes by itself, so that a slow turn can be taken apart."""
