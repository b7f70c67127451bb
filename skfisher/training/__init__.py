"""Training of a chain: epochs, optimisers, and a verdict on what came of it."""
