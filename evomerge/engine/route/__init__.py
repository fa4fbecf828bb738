"""Routes at run time: the resident model's layers run in another order, and routes exported as ordinary checkpoints."""
