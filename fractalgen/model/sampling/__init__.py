"""Drawing rolls from the network."""
