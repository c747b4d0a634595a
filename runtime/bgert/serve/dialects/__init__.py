"""One file a dialect: what its clients send, what they get back, and how they are told that something is wrong."""
