"""Conformance: what the published code gave for given inputs, and that this code gives the same. See README.md."""
