"""scripts/bench peers: programs, the ways to run them, and what the figures must be."""
