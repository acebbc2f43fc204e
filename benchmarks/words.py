"""What people call the cases, the implementations and the figures, for page and pictures."""

from __future__ import annotations

CASES = {
    "round-trip": "a short question and its answer",
    "concurrent": "16 of these at once",
    "flood": "short messages, one way",
    "batch": "20 reports to the scheduler",
    "batch-tasks": "20 tasks to a worker",
    "values": "10,000 texts and numbers",
    "payload-64kib": "an array of 64 KiB",
    "payload-1mib": "an array of 1 MiB",
    "payload-16mib": "an array of 16 MiB",
    "payload-64mib": "an array of 64 MiB",
    "payload-256mib": "an array of 256 MiB",
    "payload-1gib": "an array of 1 GiB",
    "pipelined-64kib": "arrays of 64 KiB, 8 on their way",
    "pipelined-1mib": "arrays of 1 MiB, 8 on their way",
    "pipelined-16mib": "arrays of 16 MiB, 2 on their way",
    "bytes-1mib": "messages with 1 MiB of bytes, 8 on their way",
    "receiver-busy": "8 MiB to a process with 1 busy thread",
    "receiver-busy-4": "8 MiB to a process with 4 busy threads",
    "sender-busy": "8 MiB from a process with 1 busy thread",
    "server-busy": "a question to a process with 1 busy thread",
    "beside-idle": "what 4 busy threads keep beside an idle connection",
    "beside-trickle": "what 4 busy threads keep beside 10 messages a second",
    "connections": "a new connection",
    "memory": "extra memory to receive 512 MiB",
    "hold": "longest pause of the receiver's event loop, 1 GiB",
    "cluster": "a busy worker fetches 32 MiB",
    "workloads": "5,000 tiny tasks",
    "workloads-16": "5,000 tiny tasks, 16 workers",
}

WORKLOADS = {
    "start": "start of a cluster",
    "chain": "a chain of 300 tasks that alternates between the workers",
    "submits": "200 tasks, each waited for",
    "rechunk": "a rechunk, all to all",
    "matrix": "a blocked matrix product",
    "fed": "Python tasks fed from the other worker",
    "words": "a word count, merged in a tree",
    "gather64": "64 arrays gathered",
    "exchange": "a P2P shuffle",
}

FIGURES = {
    ("cluster", "fetch_idle"): "an idle worker fetches 32 MiB",
    ("cluster", "gather"): "the client gathers 64 arrays of 1 MiB",
    ("cluster", "scatter"): "the client scatters 64 arrays of 1 MiB",
    ("cluster", "shuffle"): "a shuffle of 100 MB",
    ("memory", "sender_rss"): "extra memory to send 512 MiB",
    ("hold", "sender_hold"): "longest pause of the sender's event loop, 1 GiB",
    **{("workloads", name): words for name, words in WORKLOADS.items()},
    **{("workloads-16", name): f"{words}, 16 workers" for name, words in WORKLOADS.items()},
}
OF_ANY = {
    "cpu": "CPU time for it",
    "keep": "what the busy threads keep",
    "p50": "median time",
    "p99": "99th percentile of the time",
}

IMPLEMENTATIONS = {
    "stock": "distributed's own backend",
    "standalone": "sealwire without Dask",
    "standalone+uvloop": "sealwire without Dask, on uvloop",
    "dask": "sealwire in Dask",
    "dask+uvloop": "sealwire in Dask, on uvloop",
    "dask/200us": "sealwire in Dask, switch interval 200 µs",
    "dask/untouched": "sealwire in Dask, switch interval untouched",
    "sockets": "blocking sockets",
    "unix": "sealwire over a local socket",
    "grpcio": "gRPC",
    "pyzmq": "ZeroMQ",
}


def case(name: str) -> str:
    """What the case does."""
    return CASES.get(name, name)


def figure(case_name: str, name: str, value: str) -> str:
    """What a figure of a case says; `value` is the figure that stands for the case."""
    if name == value:
        return case(case_name)
    own = FIGURES.get((case_name, name))
    return own or f"{case(case_name)}: {OF_ANY.get(name, name.replace('_', ' '))}"


def implementation(name: str) -> str:
    """Who does it."""
    return IMPLEMENTATIONS.get(name, name)
