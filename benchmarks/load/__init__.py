"""The load fleet: open-loop conversations over every way in, from scenarios and a seed. See docs/load.md."""
