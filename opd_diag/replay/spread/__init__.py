"""A replay spread over workers, on one machine or many: the same parts, made elsewhere (``--engine ray``).

================= ===============================================================================================
`engine.py`       which engine makes the parts of a replay
`parts.py`        ``SpreadParts``: the parts of a replay, each found in the store here or made by workers
`served_parts.py` ``SpreadServedParts``: the same with a teacher behind a server, which workers ask
`pool.py`         ``Pool``: who gets which worker, and what happens when one is lost
`calls.py`        what is sent to a worker and what comes back: errors cross as what they are
`worker.py`       ``Worker``: holds the models, and makes parts as a replay in one process does
`node.py`         what a worker finds and keeps on its machine: folders of weights, the teacher's hidden states
`server.py`       the teacher's server as a worker finds it, with a connection of its own
`cluster.py`      Ray: joined or started, its room for workers, and a worker as the pool knows it
================= ===============================================================================================
"""
