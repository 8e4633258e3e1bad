"""Studies of allocators: benchmarks, simulation, theory, speed. Nothing of the product imports this."""
