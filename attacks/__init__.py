"""Attacks on a running Keyturn, over raw sockets: `make attack`.

`attacks.headings` holds the cases as tables, one file for each heading. `attacks.stage` starts what
is attacked: real servers before a real Redis, two upstreams that keep books, and the naive proxy
(`attacks.naive`) that every heading's controls must bring down.
"""
