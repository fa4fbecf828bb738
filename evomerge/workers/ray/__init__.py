"""Ray as a cluster of workers: nodes, one actor per worker, jobs, and a local cluster of its own."""
