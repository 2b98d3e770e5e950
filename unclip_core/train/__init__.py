"""Training: the loop, the losses of each stage, and the recipe of the bundled model. Nothing else imports this."""
