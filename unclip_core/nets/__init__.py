"""Networks: layers, prior transformer, UNet, conditioners, and the presets that configure them."""
