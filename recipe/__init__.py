"""Hydra configs of the `recipe` and `allocator` groups; installed as `cero.recipe`, yaml only."""
