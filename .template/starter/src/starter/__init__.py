"""A small network tells two half-moons apart. Put your own network and data in its place."""
