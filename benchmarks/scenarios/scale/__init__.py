"""Many workers, on many servers. `script/bench scale` runs all of these, `script/bench scale/idle` one."""
