"""Load on a server of this machine: clients, arrivals by a clock, and what the server's process costs meanwhile."""
