"""The command that composes: what is given, what is to be composed, and the files that are written."""
