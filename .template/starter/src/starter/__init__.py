"""A small network tells two spirals apart. Put your own network and data in its place."""
