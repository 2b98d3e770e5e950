"""What commands let a user choose, by name: without torch, so that an option can be read before torch is there."""

AUTO = "auto"
"""The machine's best device, or what a device computes in by itself."""

DTYPE_NAMES = ("fp32", "fp16", "bf16")
"""The dtypes of weights; `files.DTYPES` has torch's for them."""
