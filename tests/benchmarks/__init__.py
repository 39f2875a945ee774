from collections.abc import Callable

ErrorLine = Callable[..., str]
"""The fixture ``one_error_line``."""
