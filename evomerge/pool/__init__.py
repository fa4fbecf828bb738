"""Who evaluates: a worker, in this process or under Ray."""
