"""The measured systems, one a file. Each can start its workers, enqueue jobs, and find out when its queue is empty."""
