"""LoRA: the change of weights that an adapter makes, and its files."""
