"""How good is the music: likelihood, distances to real music, copying."""
