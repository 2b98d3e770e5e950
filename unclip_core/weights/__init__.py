"""Weight files of any family: strict reading, memory-mapped tensors, nets without weights, writing."""
