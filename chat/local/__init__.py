"""What one user keeps on one machine: keys, invites, known hosts, settings, and the records of rooms open here.

What may enter: what both hosting and joining need from this machine. It imports `core` and `transport`.
"""
