"""Networks: layers, prior transformer, UNet, conditioners, and what they are configured by."""
