"""The studio: a local page in which the model is an instrument, and the HTTP API behind it.

Nothing here decides anything about music: a request becomes the flags of ``fractalgen generate``, and the functions of
that command compose.
"""
