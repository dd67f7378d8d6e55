"""A queue under faults: what jobs leave behind is compared with what was asked for. See docs/reliability.md."""
