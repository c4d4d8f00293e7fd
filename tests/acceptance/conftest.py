"""The independent computation bars imports of the package: it runs in a process of its own and is never imported."""

collect_ignore_glob = ["independent*.py"]
