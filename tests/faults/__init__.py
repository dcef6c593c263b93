"""Faults made on purpose: killed processes, full disks, damaged and hostile files.

`python -m tests.faults --minutes 10` (or `make test-faults`) tries as many as fit into the time and
writes the table of docs/reliability.md. A fault found has a seed, with which it can be repeated.
"""
