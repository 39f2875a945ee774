"""How a roll was composed: the record, and views of it."""

from fractalgen.trace.replay import Intermediates, Trace
