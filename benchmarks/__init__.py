"""Measurements of katipo beside other clients; see README.md for the method. Needs Linux and a C compiler."""
