"""One adapter a peer, run by `serve.py` in the environment that `<peer>.txt` lists."""
