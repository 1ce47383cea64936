"""The global shuffle: from items of the input to shards in random order, in bounded memory.

::

    planning ──▶ mapping (workers) ──▶ ordering ──▶ reducing (workers) ──▶ seal
    items, job   runs sorted by key    which sample  shards                 checks, class map
                                       goes where

``job`` tells where the objects between these steps lie, ``runs`` what is in them. ``worker`` is the
process that does map and reduce tasks, ``workforce`` what hands them out on this machine.
"""
