"""A model of the protocol by which readers start and writers commit, roll back, collect and recover."""
