"""Learn in steps: the loop, its optimiser and state, the examples and their random changes."""
