"""What scripts/bench is made of: two servers to compare the host with, and the load."""
