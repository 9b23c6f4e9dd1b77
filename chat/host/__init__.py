"""The host: one event loop that admits peers, orders and stores what they say, and sends it to everybody."""
