"""Weight files of any family: strict reading, memory-mapped tensors, LoRA, writing."""
