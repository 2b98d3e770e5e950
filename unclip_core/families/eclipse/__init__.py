"""ECLIPSE (Patel et al. 2023): small priors of one pass, in the place of those of Karlo and Kandinsky 2.2."""
