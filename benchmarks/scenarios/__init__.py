"""The scenarios of the benchmark, one a file. `script/bench --list` prints the first line of each docstring.

``run(bench)`` measures. ``SYSTEMS`` names the attributes of the bench that must be started before. ``LARGE`` scenarios are not part
of a quick run.
"""
