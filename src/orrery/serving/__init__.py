"""The inference server: a process of its own that answers with the champion and lets its challengers ride along.

It reads which version answers where from the control plane (:mod:`~orrery.serving.control`), keeps the last answer on
disk, and goes on without the control plane. Models run in processes of their own (:mod:`~orrery.serving.models`).
"""
