"""Training on people's own pictures: configuration, data, losses of the four nets, and the engine under them."""
