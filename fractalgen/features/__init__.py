"""What is counted in piano rolls: notes, distances between sets of music, features, and what a critic makes of them."""
